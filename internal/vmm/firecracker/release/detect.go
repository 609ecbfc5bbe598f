package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// Found is what is known of a binary on this host.
type Found struct {
	Kind    Kind
	Path    string
	Version Version
	SHA256  string
	// Origin is empty when the checksum is not one of the known ones.
	Origin Origin
}

// Bounds of what a binary that is asked for its version may do.
const (
	maxBinaryBytes  = 256 << 20
	maxVersionBytes = 4 << 10
	versionTimeout  = time.Minute
)

// Detect says which version of a binary is at path. A binary with a known checksum is not run; any other is asked with
// --version.
//
// Errors: ErrNotFound when there is no such file, ErrFailedPrecondition when it is something else or can't be run. Whether
// the version is supported is for the caller to ask.
func Detect(ctx context.Context, kind Kind, path string) (Found, error) {
	sum, err := hash(path)
	if err != nil {
		return Found{}, fmt.Errorf("%s: %w", kind, err)
	}
	f := Found{Kind: kind, Path: path, SHA256: sum}
	if pin, ok := Lookup(sum); ok {
		if pin.Kind != kind {
			return Found{}, fmt.Errorf("%s is a %s, not a %s: %w", path, pin.Kind, kind, errs.ErrFailedPrecondition)
		}
		f.Version, f.Origin = pin.Version, pin.Origin
		return f, nil
	}
	f.Version, err = ask(ctx, kind, path)
	return f, err
}

// DetectPair detects both binaries and refuses a pair whose versions differ or are not supported.
func DetectPair(ctx context.Context, firecracker, jailer string) (f, j Found, err error) {
	if f, err = Detect(ctx, Firecracker, firecracker); err != nil {
		return f, j, err
	}
	if err := f.Version.Supported(); err != nil {
		return f, j, fmt.Errorf("%s: %w", firecracker, err)
	}
	if j, err = Detect(ctx, Jailer, jailer); err != nil {
		return f, j, err
	}
	if f.Version != j.Version {
		return f, j, fmt.Errorf("firecracker is %v and jailer is %v; install both from one release: %w",
			f.Version, j.Version, errs.ErrFailedPrecondition)
	}
	return f, j, nil
}

// Verify says whether the file at path is exactly the one that pin names. A difference is errs.ErrCorrupt.
func Verify(path string, pin Pin) error {
	sum, err := hash(path)
	if err != nil {
		return err
	}
	if sum != pin.SHA256 {
		return fmt.Errorf("%s has sha256 %s, want %s for %s %v: %w", path, sum, pin.SHA256, pin.Kind, pin.Version, errs.ErrCorrupt)
	}
	return nil
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", path, errs.ErrNotFound)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return "", err
	} else if !st.Mode().IsRegular() || st.Size() > maxBinaryBytes {
		return "", fmt.Errorf("%s is not a binary: %w", path, errs.ErrFailedPrecondition)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxBinaryBytes)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ask runs the binary with --version and reads the answer.
func ask(ctx context.Context, kind Kind, path string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	out := &firstBytes{limit: maxVersionBytes}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		return Version{}, fmt.Errorf("%s --version: %w: %w", path, err, errs.ErrFailedPrecondition)
	}
	return parseAnswer(kind, path, out.String())
}

// parseAnswer reads "Firecracker v1.12.1" off the first line of what --version printed.
func parseAnswer(kind Kind, path, answer string) (Version, error) {
	line, _, _ := strings.Cut(answer, "\n")
	name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
	if !strings.EqualFold(name, string(kind)) {
		return Version{}, fmt.Errorf("%s --version says %.80q, which is no %s: %w", path, line, kind, errs.ErrFailedPrecondition)
	}
	v, err := ParseVersion(number)
	if err != nil {
		return Version{}, fmt.Errorf("%s --version: %w: %w", path, err, errs.ErrFailedPrecondition)
	}
	return v, nil
}

// firstBytes keeps the first limit bytes that are written to it and drops the rest.
type firstBytes struct {
	bytes.Buffer
	limit int
}

// Write never fails, so that what writes is not ended by a broken pipe.
func (b *firstBytes) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), b.limit-b.Len())])
	return len(p), nil
}
