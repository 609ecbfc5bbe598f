package main

import (
	"fmt"
	"io"
	"time"
)

// stopwatch names something that takes seconds. The function that it returns says how long it took.
func stopwatch(log io.Writer, what string) func(error) {
	began := time.Now()
	fmt.Fprintf(log, "kvmhost: %s\n", what)
	return func(err error) {
		if err == nil {
			fmt.Fprintf(log, "kvmhost: %s: %.1f s\n", what, time.Since(began).Seconds())
		}
	}
}
