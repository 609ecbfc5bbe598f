package clone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// entropyBytes are read from the host. The driver and the kernel above it each hold up to a cache line that the host gave before the
	// freeze, which is the same in every clone: at least as much again is new.
	entropyBytes = 256
	// entropyBits is what is counted of it: 32 bytes are more than the pool holds.
	entropyBits = 256
	// entropyPatience is how long the host may take to give it, and entropyPause how long to wait before asking again.
	entropyPatience = time.Second
	entropyPause    = time.Millisecond
)

// random is the kernel's generator, and the host's as the module virtio_rng gives it to the guest.
type random struct{ pool, host string }

// stir adds the host's randomness to the pool, if there is any, and makes the kernel use the pool for all that it gives from now
// on.
func (r random) stir(ctx context.Context) (note string, err error) {
	pool, err := os.OpenFile(r.pool, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer pool.Close()
	fresh, err := readHost(ctx, r.host)
	switch {
	case err != nil:
		note = fmt.Sprintf("nothing of the host's: %v", err)
	default:
		if err := addEntropy(pool, fresh, entropyBits); err != nil {
			return "", err
		}
	}
	clear(fresh)
	return note, reseed(pool)
}

// readHost reads entropyBytes of the host's randomness.
func readHost(ctx context.Context, path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(ctx, entropyPatience)
	defer cancel()
	buf := make([]byte, entropyBytes)
	for have := 0; have < len(buf); {
		n, err := unix.Read(fd, buf[have:])
		switch {
		case n > 0:
			have += n
			continue
		case err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s gave %d of %d bytes: %w", path, have, len(buf), context.Cause(ctx))
		case <-time.After(entropyPause):
		}
	}
	return buf, nil
}
