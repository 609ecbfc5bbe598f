package pagertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/pager/uffd"
)

// prey is a Victim from the inside.
type prey struct {
	regions []mapped
	fd      *uffd.FD
	conn    *net.UnixConn // stays open and is never used again
}

type mapped struct {
	RegionSpec
	mem []byte
}

// victim does jobs until there are no more.
func victim() error {
	var p prey
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var j Job
		if err := in.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r, err := p.do(j)
		if err != nil {
			r.Err = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

func (p *prey) do(j Job) (r Result, err error) {
	// A goroutine that sleeps in a fault keeps its processor.
	runtime.GOMAXPROCS(max(j.Threads, 1) + 2)
	switch j.Op {
	case OpHello:
		err = p.hello(j)
	case OpTouch:
		r.Sums, err = p.touch(j)
	case OpWalk:
		r.Nanos, err = p.walk(j)
	case OpRemove:
		for range max(j.Rounds, 1) {
			if err = p.remove(j.From, j.To); err != nil {
				break
			}
		}
	case OpChurn:
		err = p.churn(j)
	default:
		err = fmt.Errorf("no such job: %q", j.Op)
	}
	return r, err
}

// hello is what Firecracker does when it loads a snapshot with a page-fault server.
func (p *prey) hello(j Job) error {
	fd, err := uffd.Open(uffd.FeatureRemove)
	if err != nil {
		return err
	}
	p.fd = fd
	type wire struct {
		Base        uint64 `json:"base_host_virt_addr"`
		Size        uint64 `json:"size"`
		Offset      uint64 `json:"offset"`
		PageSize    uint64 `json:"page_size"`
		PageSizeKiB uint64 `json:"page_size_kib"`
	}
	var list []wire
	for _, spec := range j.Regions {
		flags, page := unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, uint64(Page)
		if spec.Huge {
			flags, page = flags|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB, 2<<20
		}
		mem, err := unix.Mmap(-1, 0, int(spec.Size), unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			return fmt.Errorf("map %d bytes: %w", spec.Size, err)
		}
		p.regions = append(p.regions, mapped{spec, mem})
		if err := fd.Register(address(mem), spec.Size); err != nil {
			return fmt.Errorf("register: %w", err)
		}
		list = append(list, wire{address(mem), spec.Size, spec.Offset, page, page})
	}
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if p.conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: j.Socket}); err != nil {
		return err
	}
	_, _, err = p.conn.WriteMsgUnix(body, unix.UnixRights(fd.FD()), nil)
	return err
}

// at returns the memory of guest memory from an offset on, to the end of its region.
func (p *prey) at(offset uint64) []byte {
	for _, r := range p.regions {
		if offset >= r.Offset && offset-r.Offset < r.Size {
			return r.mem[offset-r.Offset:]
		}
	}
	panic(fmt.Sprintf("offset %#x is in no region", offset))
}

func (p *prey) page(offset uint64) []byte { return p.at(offset)[:Page] }

// together runs something in several threads and returns the first error.
func together(threads int, do func(thread int) error) error {
	failed := make([]error, max(threads, 1))
	var wg sync.WaitGroup
	for i := range failed {
		wg.Go(func() {
			runtime.LockOSThread()
			failed[i] = do(i)
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

func (p *prey) touch(j Job) ([]uint32, error) {
	all := make([][]uint32, max(j.Threads, 1))
	for i := range all {
		all[i] = make([]uint32, len(j.Offsets))
	}
	err := together(j.Threads, func(thread int) error {
		for i, offset := range j.Offsets {
			all[thread][i] = Sum(p.page(offset))
		}
		return nil
	})
	for _, sums := range all[1:] {
		for i, sum := range sums {
			if sum != all[0][i] {
				return nil, errors.Join(err, fmt.Errorf("two threads read the page at %#x differently", j.Offsets[i]))
			}
		}
	}
	return all[0], err
}

// sink keeps the compiler from leaving out what is read.
var sink atomic.Uint32

func (p *prey) walk(j Job) (int64, error) {
	offsets := j.Offsets
	if offsets == nil {
		for at := j.From; at < j.To; at += Page {
			offsets = append(offsets, at)
		}
	}
	threads := max(j.Threads, 1)
	began := time.Now()
	err := together(threads, func(thread int) error {
		var sum uint32
		for _, offset := range offsets[thread*len(offsets)/threads : (thread+1)*len(offsets)/threads] {
			sum += uint32(p.at(offset)[0])
		}
		sink.Add(sum)
		return nil
	})
	return time.Since(began).Nanoseconds(), err
}

func (p *prey) remove(from, to uint64) error {
	return unix.Madvise(p.at(from)[:to-from], unix.MADV_DONTNEED)
}

// churn has threads read all pages of the range again and again while others of the range are taken away.
func (p *prey) churn(j Job) error {
	pages := (j.To - j.From) / Page
	c := churn{p, j, pages, make([]atomic.Bool, pages), make([]atomic.Bool, pages), atomic.Bool{}}
	return together(j.Threads+1, func(thread int) error {
		rnd := rand.New(rand.NewPCG(uint64(thread), 1))
		if thread == 0 {
			return c.remove(rnd)
		}
		return c.read(rnd)
	})
}

// churn is what the threads of one know of each other.
type churn struct {
	*prey
	Job
	pages             uint64
	removing, removed []atomic.Bool // from before a page is taken away, and from after
	over              atomic.Bool
}

func (c *churn) remove(rnd *rand.Rand) error {
	defer c.over.Store(true)
	for range c.Rounds {
		n := 1 + rnd.Uint64N(4)
		first := rnd.Uint64N(c.pages - n)
		for i := range n {
			c.removing[first+i].Store(true)
		}
		if err := c.prey.remove(c.From+first*Page, c.From+(first+n)*Page); err != nil {
			return err
		}
		for i := range n {
			c.removed[first+i].Store(true)
		}
	}
	return nil
}

func (c *churn) read(rnd *rand.Rand) error {
	zero := Sum(make([]byte, Page))
	for !c.over.Load() {
		i := rnd.Uint64N(c.pages)
		gone := c.removed[i].Load() // before the read: a page that is gone now stays zero
		got := Sum(c.page(c.From + i*Page))
		if gone && got != zero {
			return fmt.Errorf("page %d holds %#x after it was taken away", i, got)
		}
		// A page that is taken away while it is read is old at its beginning and zero at its end.
		if !c.removing[i].Load() && got != c.Sums[i] {
			return fmt.Errorf("page %d holds %#x, not what it was made of", i, got)
		}
	}
	return nil
}
