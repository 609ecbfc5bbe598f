package client

import (
	"context"
	"io"
	"sync"
)

// source gives the transport what a caller's reader has. The reader is read by a goroutine of its own, because the transport waits for
// a read that is under way, and a reader may never come back.
type source struct {
	*io.PipeReader
	in *io.PipeWriter

	mu  sync.Mutex
	err error // of the reader
}

// newSource begins to read. When ctx ends nothing more is given, and what a read that is under way returns is lost.
func newSource(ctx context.Context, r io.Reader, dog *watchdog) *source {
	s := &source{}
	s.PipeReader, s.in = io.Pipe()
	context.AfterFunc(ctx, func() { _ = s.in.CloseWithError(context.Cause(ctx)) })
	go s.pump(ctx, r, dog)
	return s
}

func (s *source) pump(ctx context.Context, r io.Reader, dog *watchdog) {
	buf := make([]byte, copyBytes)
	for ctx.Err() == nil {
		dog.timer.Stop() // the caller's reader may take its time
		n, err := r.Read(buf)
		if ctx.Err() != nil {
			return
		}
		dog.timer.Reset(silence)
		if n > 0 {
			if _, err := s.in.Write(buf[:n]); err != nil {
				return // nobody wants more
			}
		}
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			_ = s.in.CloseWithError(err) // EOF is the end
			return
		}
	}
}

// ended says whether all was read.
func (s *source) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == io.EOF
}

// failed is the error of the caller's reader, if it has one.
func (s *source) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == io.EOF {
		return nil
	}
	return s.err
}
