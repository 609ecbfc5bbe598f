// Package buildcache keeps what is slow to make (a Debian tree, a guest image, an emulated host) outside the checkout, under
// a hash of its inputs, so that it is made once and never used after its inputs changed.
//
// It is used by developer tools and tests only, never by the service. It is a leaf package.
package buildcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// Env names the variable that moves the cache.
const Env = "WRENN_CACHE"

// Dir is the cache's folder: $WRENN_CACHE, else wrenn below the user's cache folder.
func Dir() (string, error) {
	if d := os.Getenv(Env); d != "" {
		return filepath.Abs(d)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: %w; set %s", err, Env)
	}
	return filepath.Join(base, "wrenn"), nil
}

// Key hashes the inputs of a thing. Inputs are framed by their length, so ("ab","c") and ("a","bc") differ.
type Key struct{ parts []string }

// Add adds strings to the inputs.
func (k *Key) Add(parts ...string) *Key {
	k.parts = append(k.parts, parts...)
	return k
}

// AddFile adds a file's content to the inputs.
func (k *Key) AddFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	k.Add(hex.EncodeToString(h.Sum(nil)))
	return nil
}

// Sum is the hash, 16 hex digits of it.
func (k *Key) Sum() string {
	h := sha256.New()
	for _, p := range k.parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Get returns the folder of the thing called name with this key, and makes it first when it is not there: build fills the
// empty folder it is given, which then appears under its final name at once or not at all. Two processes that want the same
// thing make it once; the other waits.
func Get(ctx context.Context, name string, key *Key, build func(ctx context.Context, dir string) error) (string, error) {
	root, err := Dir()
	if err != nil {
		return "", err
	}
	final := filepath.Join(root, name+"-"+key.Sum())
	if exists(final) {
		return final, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(final+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if exists(final) {
		return final, nil
	}
	tmp := final + ".making"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	if err := build(ctx, tmp); err != nil {
		_ = os.RemoveAll(tmp)
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	if err := os.Rename(tmp, final); err != nil {
		return "", err
	}
	return final, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
