// Package idempotency makes an operation happen once however often it is asked for: who asks with the same key gets the first one's
// answer, also after a restart.
//
// Answers are kept in memory and on disk, a file a key, for a day and up to a number of them. A failure is not kept: the operation is
// to be tried anew.
package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/statefile"
)

const (
	// Lifetime is how long an answer is kept.
	Lifetime = 24 * time.Hour
	// MaxAnswers bounds how many are; beyond, the oldest goes.
	MaxAnswers = 10_000
	// fileVersion is the version of saved that this code writes and reads.
	fileVersion = 1
	// maxFile bounds what is read back.
	maxFile = 4 << 20
)

// Keys are the answers of a host. Make them by Open.
type Keys struct {
	dir string

	mu      sync.Mutex
	entries map[string]*entry
	order   []string // of those that are answered, oldest first
}

// entry is one key. What is in it does not change once done is closed.
type entry struct {
	done    chan struct{}
	request string
	saved
	err error
}

// saved is an entry's file.
type saved struct {
	Version int       `json:"version"` // fileVersion
	Request string    `json:"request"` // digest of what was asked for
	Answer  []byte    `json:"answer"`
	Time    time.Time `json:"time"`
}

// Name is what a key is kept under: keys are the callers' and may hold anything.
func Name(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// Do calls fn once for a key and returns its answer; for a key that was answered before, that answer. Who comes while fn runs waits for
// it. fn goes on although ctx ends; then the error is the context's, and the answer may be asked for later. The same key with another
// request is an ErrInvalid.
func (k *Keys) Do(ctx context.Context, key string, request []byte, fn func(context.Context) ([]byte, error)) ([]byte, error) {
	sum := sha256.Sum256(request)
	digest, name := hex.EncodeToString(sum[:]), Name(key)
	e, mine := k.begin(name, digest)
	if e.request != digest {
		return nil, errs.Field("idempotency_key", fmt.Sprintf("%.80q was used for another request", key), "give a new one")
	}
	if mine {
		go k.answer(name, e, func() ([]byte, error) { return fn(context.WithoutCancel(ctx)) })
	}
	select {
	case <-e.done:
		return e.Answer, e.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// begin returns the key's entry, and whether it is new and the caller's to answer.
func (k *Keys) begin(name, digest string) (*entry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	if e := k.entries[name]; e != nil {
		return e, false
	}
	e := &entry{done: make(chan struct{}), request: digest}
	k.entries[name] = e
	return e, true
}

// answer calls fn and keeps what it answered.
func (k *Keys) answer(name string, e *entry, fn func() ([]byte, error)) {
	answer, err := fn()
	now := saved{Request: e.request, Answer: answer, Time: time.Now()}
	if err == nil {
		// What was done was done, also when the disk is full: then the answer is kept until the program ends.
		_ = k.save(name, now)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.saved, e.err = now, err; err != nil {
		e.Answer = nil
		delete(k.entries, name)
	} else {
		k.order = append(k.order, name)
	}
	close(e.done)
}

// expire forgets what is too old or too much.
//
// Preconditions: k.mu is held.
func (k *Keys) expire() {
	for len(k.order) > 0 {
		name := k.order[0]
		if len(k.order) < MaxAnswers && time.Since(k.entries[name].Time) < Lifetime {
			return
		}
		_ = os.Remove(k.path(name)) // a file that stays is removed by Open
		delete(k.entries, name)
		k.order = k.order[1:]
	}
}

func (k *Keys) path(name string) string { return filepath.Join(k.dir, name+".json") }

// save writes an answer: whole and durable, or not at all.
func (k *Keys) save(name string, s saved) error {
	s.Version = fileVersion
	if err := statefile.Write(k.path(name), s); err != nil {
		return fmt.Errorf("keep the answer of an idempotency key: %w", err)
	}
	return nil
}

// Open reads the answers of a folder, which it makes. A file that can't be read or is too old is removed.
func Open(dir string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	k := &Keys{dir: dir, entries: map[string]*entry{}}
	for _, f := range files {
		name, isAnswer := strings.CutSuffix(f.Name(), ".json")
		e := k.read(name)
		if !isAnswer || e == nil {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return nil, err
			}
			continue
		}
		k.entries[name] = e
		k.order = append(k.order, name)
	}
	slices.SortFunc(k.order, func(a, b string) int { return k.entries[a].Time.Compare(k.entries[b].Time) })
	k.expire()
	return k, nil
}

// read returns the entry of a file, nil for none that is of use.
func (k *Keys) read(name string) *entry {
	e := &entry{done: make(chan struct{})}
	err := statefile.Read(k.path(name), maxFile, &e.saved)
	if err != nil || e.Version != fileVersion || e.Request == "" || time.Since(e.Time) >= Lifetime {
		return nil
	}
	e.request = e.Request
	close(e.done)
	return e
}
