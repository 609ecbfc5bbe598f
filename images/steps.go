package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// steps tells a person what is going on and what it took.
type steps struct {
	mu  sync.Mutex
	out io.Writer
}

// do runs one step. Its name is printed when it begins and again, with its time, when it ends.
func (s *steps) do(name string, step func() error) error {
	began := time.Now()
	s.print("   %s ...", name)
	err := step()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.print("   %s: %.1f s", name, time.Since(began).Seconds())
	return nil
}

func (s *steps) print(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, format+"\n", args...)
}
