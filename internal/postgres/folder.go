package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	// maxSocketPath is what the kernel lets a socket's name have.
	maxSocketPath = 107
	socketName    = ".s.PGSQL.5432"
	// maxLog is from when on the log of earlier runs is thrown away, in bytes.
	maxLog = 16 << 20
	// maxTail is how much of the log an error tells.
	maxTail = 2 << 10
)

// runAs is who the server runs as: nil is this process's own user.
func runAs(name string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	name = cmp.Or(name, DefaultUser)
	const fix = "PostgreSQL's package makes it; or: useradd --system postgres"
	u, err := user.Lookup(name)
	if err != nil {
		return nil, errs.Field("postgres", fmt.Sprintf("it does not run as root, and there is no user %q", name), fix)
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uerr, gerr); err != nil || uid == 0 {
		return nil, errs.Field("postgres", fmt.Sprintf("user %q has uid %s and group %s", name, u.Uid, u.Gid), fix)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// prepare makes the folder and those in it that are not PostgreSQL's own affair.
func (c *Config) prepare(who *syscall.Credential) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = dir
	if n := len(filepath.Join(c.socket(), socketName)); n > maxSocketPath {
		return errs.Field("postgres", fmt.Sprintf("%s makes a socket's name of %d bytes", dir, n),
			fmt.Sprintf("give a folder whose path is %d shorter", n-maxSocketPath))
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	for _, d := range []string{dir, c.socket()} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := own(d, who); err != nil {
			return err
		}
	}
	if who == nil {
		return nil
	}
	for d := filepath.Dir(dir); d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode()&0o001 == 0 {
			return errs.Field("postgres", fmt.Sprintf("its user can't enter %s", d), "chmod o+x "+d+", or give another folder")
		}
	}
	return nil
}

// own gives a file to who the server runs as.
func own(path string, who *syscall.Credential) error {
	if who == nil {
		return nil
	}
	return os.Lchown(path, int(who.Uid), int(who.Gid))
}

// initialize makes the data folder, if there is none. It gets its name when it is whole.
func (c *Config) initialize(ctx context.Context, bin string, who *syscall.Credential) error {
	if _, err := os.Lstat(c.data()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	half := c.data() + ".new"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", half, "-U", role, "-E", "UTF8", //nolint:gosec // the host's own program
		"--locale=C.UTF-8", "-A", "trust", "--data-checksums", "--no-instructions")
	cmd.Dir, cmd.Env = c.Dir, environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, last(out))
	}
	return os.Rename(half, c.data())
}

// isReady reads what PostgreSQL says of itself in its pid file: whose it is in the first line, and its state in the last.
func isReady(data string, pid int) bool {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return strings.TrimSpace(lines[0]) == strconv.Itoa(pid) && len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
}

// openLog opens the log to append to it.
func openLog(path string, who *syscall.Credential) (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND | syscall.O_NOFOLLOW
	if info, err := os.Lstat(path); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := own(path, who); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tail is the end of the log.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxTail {
		_, _ = f.Seek(-maxTail, io.SeekEnd) // or it is all of it
	}
	text, _ := io.ReadAll(io.LimitReader(f, maxTail)) // what can be read of it
	return last(text)
}

// last is the end of a program's output on one line.
func last(out []byte) string {
	out = out[max(0, len(out)-maxTail):]
	return string(bytes.ReplaceAll(bytes.TrimSpace(bytes.ToValidUTF8(out, nil)), []byte("\n"), []byte(" | ")))
}
