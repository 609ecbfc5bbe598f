package pager

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// recordChunk is how many pages the record grows by at a time.
const recordChunk = 4096

// set is the working set of an earlier start, to bring in, and of this one, to write down.
type set struct {
	ahead []uint32 // pages to bring in, in order; gone when it is done

	dir      *os.Root // the folder of the record, open from before privilege was given up; nil: nothing is recorded
	name     string
	on       bool // recording
	memory   uint64
	max      int
	recorded []uint32
	stats    *Stats
}

// openSet reads the working set to prefetch and opens the folder of the one to record. Neither what is not there nor what is damaged
// stops a start: the set is there to make it faster.
func openSet(c Config, stats *Stats) (*set, error) {
	s := &set{memory: c.Layout.Size(), max: c.MaxPages, stats: stats}
	if c.Prefetch != "" {
		ahead, err := readSet(c.Prefetch, s.memory)
		if err != nil {
			stats.PrefetchNote = err.Error()
		}
		s.ahead = ahead
	}
	stats.PrefetchDone = len(s.ahead) == 0
	if c.Record == "" {
		return s, nil
	}
	dir, err := os.OpenRoot(filepath.Dir(c.Record))
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	s.dir, s.name, s.on = dir, filepath.Base(c.Record), true
	return s, nil
}

func readSet(path string, memory uint64) ([]uint32, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := DecodeWorkingSet(f, info.Size())
	if err == nil && s.Memory != memory {
		err = fmt.Errorf("working set of a memory of %d bytes, not %d: %w", s.Memory, memory, errs.ErrInvalid)
	}
	return s.Pages, err
}

// canWrite fails when the record's folder cannot be written to: better now than when there is something to write.
func (s *set) canWrite() error {
	if s.dir == nil {
		return nil
	}
	f, err := s.dir.Open(".")
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer f.Close()
	if err := unix.Faccessat(int(f.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("record: folder %s: %w", s.dir.Name(), err)
	}
	return nil
}

// note adds the page that begins at an offset in guest memory. When the record is full, the first pages stay: those are what a
// start needs first.
func (s *set) note(offset uint64) {
	if !s.on || len(s.recorded) >= s.max {
		return
	}
	if len(s.recorded) == cap(s.recorded) { // by a piece, not by doubling
		s.recorded = append(make([]uint32, 0, len(s.recorded)+recordChunk), s.recorded...)
	}
	s.recorded = append(s.recorded, uint32(offset/smallPage))
	s.stats.Recorded++
}

// finish writes what was recorded and records no more. Without a record under way it does nothing.
func (s *set) finish() error {
	if !s.on {
		return nil
	}
	s.on = false
	temp := s.name + ".tmp"
	err := s.write(temp)
	if err == nil {
		err = s.dir.Rename(temp, s.name)
	}
	s.recorded = nil
	if err != nil {
		return errors.Join(fmt.Errorf("record %s: %w", s.name, err), s.dir.Remove(temp))
	}
	return nil
}

// write makes the file. It is not synced: the checksum tells a torn one, and syncing would hold up faults.
func (s *set) write(name string) error {
	f, err := s.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(WorkingSet{s.memory, s.recorded}.Encode(f), f.Close())
}

func (s *set) close() {
	if s.dir != nil {
		_ = s.dir.Close()
	}
}
