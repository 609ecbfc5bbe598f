package pager

import "math/bits"

// bitmap is one bit per page. It never grows.
type bitmap []uint64

// newBitmap has room for n bits. A large one is memory that the kernel hands out only where it is written to.
func newBitmap(n uint64) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) get(i uint64) bool { return b[i/64]>>(i%64)&1 != 0 }

func (b bitmap) set(i uint64) { b[i/64] |= 1 << (i % 64) }

// mask has the bits of word w that lie in [from, to).
func mask(w, from, to uint64) uint64 {
	m := ^uint64(0)
	if w == from/64 {
		m &= ^uint64(0) << (from % 64)
	}
	if w == to/64 {
		m &= 1<<(to%64) - 1
	}
	return m
}

// setRange sets [from, to). A word that is full is not written again, so that a flood of the same costs no memory traffic.
func (b bitmap) setRange(from, to uint64) {
	if from >= to {
		return
	}
	for w := from / 64; w <= (to-1)/64; w++ {
		if m := mask(w, from, to); b[w]&m != m {
			b[w] |= m
		}
	}
}

// clearRange clears [from, to).
func (b bitmap) clearRange(from, to uint64) {
	if from >= to {
		return
	}
	for w := from / 64; w <= (to-1)/64; w++ {
		if m := mask(w, from, to); b[w]&m != 0 {
			b[w] &^= m
		}
	}
}

func (b bitmap) count() (n uint64) {
	for _, w := range b {
		n += uint64(bits.OnesCount64(w))
	}
	return n
}
