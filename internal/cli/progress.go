package cli

import (
	"fmt"
	"io"
	"time"

	"wrenn.dev/wrenn/internal/vmm"
)

// progress prints a line a step, if it is asked for. Steps that run side by side may tell of their ends at once.
type progress struct {
	on bool
	w  io.Writer
}

func (p progress) step(s vmm.Step) { p.line("  %-24s %8.3fs", s.Name, s.Took.Seconds()) }

func (p progress) line(format string, args ...any) {
	if p.on {
		fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// sayEvery is how often work that takes long says that it goes on.
const sayEvery = 2 * time.Second

// waiting says from time to time that the work goes on, until the returned function is called.
func (p progress) waiting(what string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(sayEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.line("  … %s, %.0f s", what, time.Since(began).Seconds())
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
