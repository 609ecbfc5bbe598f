package client

import (
	"io"
	"sync"
)

// source is what is uploaded. The transport reads it, and may do so still when the answer is there already.
type source struct {
	r   io.Reader
	dog *watchdog

	mu     sync.Mutex
	closed bool  // the upload is over
	err    error // of r
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if !s.begin() {
		return 0, io.ErrClosedPipe
	}
	n, err := s.r.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	if !s.closed {
		s.dog.timer.Reset(silence)
	}
	return n, err
}

// begin stops the watchdog: the caller's reader may take its time.
func (s *source) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.dog.timer.Stop()
	}
	return !s.closed
}

// Close ends the upload: nothing more is read.
func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
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
