package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"wrenn.dev/wrenn/internal/server/portname"
)

// load is what is asked of a proxy.
type load struct {
	name, unit string
	conns      int
	bytes      int // of an answer
	figure     func(answers, bytes, seconds float64) float64
}

var loads = []load{
	{"requests, 64 connections", "req/s", 64, 128, func(answers, _, seconds float64) float64 { return answers / seconds }},
	{"throughput, 4 connections", "MB/s", 4, 64 << 20, func(_, bytes, seconds float64) float64 { return bytes / seconds / 1e6 }},
}

// take asks as fast as answers come, on each connection one request at a time, for as long as each.
func (l load) take(ctx context.Context, address string, each time.Duration) (float64, error) {
	var answers, got atomic.Int64
	errs := make(chan error, l.conns)
	began := time.Now()
	var all sync.WaitGroup
	for range l.conns {
		all.Go(func() { errs <- l.ask(ctx, address, began.Add(each), &answers, &got) })
	}
	all.Wait()
	took := time.Since(began).Seconds()
	close(errs)
	var failed error
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	return l.figure(float64(answers.Load()), float64(got.Load()), took), failed
}

// ask does so on one connection.
func (l load) ask(ctx context.Context, address string, until time.Time, answers, got *atomic.Int64) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	request := fmt.Appendf(nil, "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", l.bytes, domain.Host(portname.Target{Sandbox: sandbox, Port: 8000}))
	r := bufio.NewReaderSize(c, 256<<10)
	for time.Now().Before(until) && ctx.Err() == nil {
		if _, err := c.Write(request); err != nil {
			return err
		}
		if err := l.answer(r, got); err != nil {
			return err
		}
		answers.Add(1)
	}
	return ctx.Err()
}

// answer reads one, which must be the whole that was asked for.
func (l load) answer(r *bufio.Reader, got *atomic.Int64) error {
	length, first := -1, true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		switch name, value, _ := bytes.Cut(line, []byte(": ")); {
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return fmt.Errorf("the answer is %q", line)
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
		if first = false; len(line) == 0 {
			break
		}
	}
	if length != l.bytes {
		return fmt.Errorf("the answer has %d bytes, want %d", length, l.bytes)
	}
	n, err := io.CopyN(discard{}, r, int64(length))
	got.Add(n)
	return err
}

// discard takes pieces as large as the reader has them.
type discard struct{}

// Write implements io.Writer.
func (discard) Write(p []byte) (int, error) { return len(p), nil }
