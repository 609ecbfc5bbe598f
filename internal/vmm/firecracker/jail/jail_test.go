package jail

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

const execName = "firecracker"

func newBase(t *testing.T) Base {
	t.Helper()
	dir := t.TempDir()
	return New(filepath.Join(dir, "jail"), filepath.Join(dir, "stage"))
}

// newJail makes a jail for this process's own uid, which needs no privilege.
func newJail(t *testing.T, b Base, id string) *Jail {
	t.Helper()
	j, err := b.Create(execName, id, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCreateListOpenRemove(t *testing.T) {
	b := newBase(t)
	if ids, err := b.List(); err != nil || len(ids) != 0 {
		t.Fatalf("List of nothing = %v, %v", ids, err)
	}
	newJail(t, b, "one")
	newJail(t, b, "two")
	if _, err := b.Create(execName, "one", 0, 0); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("a second Create: %v", err)
	}
	if ids, err := b.List(); err != nil || !slices.Equal(ids, []string{"one", "two"}) {
		t.Errorf("List = %v, %v", ids, err)
	}
	j, err := b.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := b.Remove(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open("one"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Open after Remove: %v", err)
	}
	if err := b.Remove(t.Context(), "one"); err != nil {
		t.Errorf("a second Remove: %v", err)
	}
	if ids, _ := b.List(); !slices.Equal(ids, []string{"two"}) {
		t.Errorf("List = %v", ids)
	}
}

func TestHalfMadeJailIsListedAndRemoved(t *testing.T) {
	b := newBase(t)
	if err := os.MkdirAll(filepath.Join(b.dir, "firecracker-v1.13", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if ids, err := b.List(); err != nil || !slices.Equal(ids, []string{"half"}) {
		t.Errorf("List = %v, %v", ids, err)
	}
	if _, err := b.Open("half"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Open = %v", err)
	}
	if err := b.Remove(t.Context(), "half"); err != nil {
		t.Fatal(err)
	}
	if ids, _ := b.List(); len(ids) != 0 {
		t.Errorf("List = %v", ids)
	}
}

func TestBaseMustBeOursAlone(t *testing.T) {
	b := newBase(t)
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(execName, "x", 0, 0); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("a base that all can write to: %v", err)
	}
	if err := os.Remove(filepath.Join(b.dir, execName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(b.dir, execName)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(execName, "x", 0, 0); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("a base that leads elsewhere: %v", err)
	}
}

func TestProvideReadOnly(t *testing.T) {
	b := newBase(t)
	j := newJail(t, b, "x")
	src := t.TempDir()
	public := write(t, filepath.Join(src, "kernel"), "elf", 0o444)
	private := write(t, filepath.Join(src, "initramfs"), "cpio", 0o600)
	for name, path := range map[string]string{"kernel": public, "initramfs": private} {
		if err := j.Provide(path, name, true); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(j.Path(name))
		if err != nil || st.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	orig, _ := os.Stat(public)
	linked, _ := os.Stat(j.Path("kernel"))
	if !os.SameFile(orig, linked) {
		t.Error("a file that may be shared was copied")
	}
	orig, _ = os.Stat(private)
	copied, _ := os.Stat(j.Path("initramfs"))
	if os.SameFile(orig, copied) || orig.Mode().Perm() != 0o600 {
		t.Error("a private file was shared or changed")
	}
	other := newJail(t, b, "y")
	if err := other.Provide(private, "initramfs", true); err != nil {
		t.Fatal(err)
	}
	again, _ := os.Stat(other.Path("initramfs"))
	if !os.SameFile(copied, again) {
		t.Error("a staged file was copied again")
	}
	if ids, _ := b.List(); !slices.Equal(ids, []string{"x", "y"}) {
		t.Errorf("List = %v: the stage is no jail", ids)
	}
}

func TestProvideWritable(t *testing.T) {
	j := newJail(t, newBase(t), "x")
	path := write(t, filepath.Join(filepath.Dir(filepath.Dir(j.dir)), "disk"), "data", 0o644)
	if err := j.Provide(path, "drives/data", false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(j.Path("drives/data"), []byte("new!"), 0); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "new!" {
		t.Errorf("the file holds %q", got)
	}
}

func TestProvideRefuses(t *testing.T) {
	j := newJail(t, newBase(t), "x")
	if err := j.Provide("/nonexistent", "a", true); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	for _, path := range []string{t.TempDir(), "/dev/null"} {
		if err := j.Provide(path, "a", true); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestStagePrunesWhatNobodyUses(t *testing.T) {
	b := newBase(t)
	j := newJail(t, b, "x")
	src := t.TempDir()
	for i := range 3 {
		path := write(t, filepath.Join(src, fmt.Sprint(i)), "data", 0o600)
		if err := j.Provide(path, fmt.Sprint("f", i), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(j.Path("f0")); err != nil {
		t.Fatal(err)
	}
	dir := b.stageDir
	count := func() int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	if err := prune(dir, time.Now()); err != nil || count() != 3 {
		t.Errorf("%d copies after an early prune: %v", count(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(dir, e.Name()), time.Time{}, time.Now().Add(-2*unusedFor)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Tidy(); err != nil || count() != 2 {
		t.Errorf("%d copies after they were not used for long, want the 2 in use: %v", count(), err)
	}
	if err := newBase(t).Tidy(); err != nil {
		t.Errorf("a base that never had a copy: %v", err)
	}
}

func TestPipes(t *testing.T) {
	j := newJail(t, newBase(t), "x")
	if _, err := j.OpenPipe("log"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("before it is made: %v", err)
	}
	if err := j.MakePipe("log"); err != nil {
		t.Fatal(err)
	}
	f, err := j.OpenPipe("log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	outside := write(t, filepath.Join(t.TempDir(), "secret"), "secret", 0o600)
	for name, put := range map[string]func(path string) error{
		"link": func(p string) error { return os.Symlink(outside, p) },
		"file": func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"dir":  func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		if err := put(j.Path(name)); err != nil {
			t.Fatal(err)
		}
		if _, err := j.OpenPipe(name); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s in the pipe's place: %v, want ErrCorrupt", name, err)
		}
	}
}

func TestDial(t *testing.T) {
	j := newJail(t, newBase(t), "x")
	const name = "run/api.sock"
	if _, err := j.Dial(name, os.Getpid()); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("without a socket: %v", err)
	}
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", j.root.Fd(), name))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := j.Dial(name, os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := j.Dial(name, 1); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("another process listens: %v", err)
	}
	// A jailed process may put a link in the way, to make us talk to a service of the host.
	if err := os.Rename(j.Path("run"), j.Path("run2")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("run2", j.Path("run")); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Dial(name, os.Getpid()); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("through a link: %v", err)
	}
}

func TestKilledMark(t *testing.T) {
	b := newBase(t)
	j := newJail(t, b, "x")
	if j.Killed() {
		t.Error("a new jail is marked")
	}
	if err := b.MarkKilled("x"); err != nil {
		t.Fatal(err)
	}
	if !j.Killed() {
		t.Error("the mark is not seen")
	}
	if err := b.MarkKilled("none"); err != nil {
		t.Errorf("MarkKilled of nothing: %v", err)
	}
	if err := b.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if !j.Killed() {
		t.Error("a removed jail is not seen as killed")
	}
}

func TestRemoveHostileContent(t *testing.T) {
	b := newBase(t)
	j := newJail(t, b, "x")
	outside := t.TempDir()
	keep := write(t, filepath.Join(outside, "keep"), "keep", 0o600)
	if err := os.Symlink(outside, j.Path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(keep, j.Path("hard")); err != nil {
		t.Fatal(err)
	}
	nest(t, j, 3000)
	for i := range 3000 {
		write(t, j.Path(fmt.Sprintf("drives/%d-%s", i, strings.Repeat("n", 200))), "", 0)
	}
	for _, name := range []string{"moved-1", "moved-2", "\n\x1b[2J", "-rf"} {
		if err := os.MkdirAll(j.Path(name+"/a/b"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(j.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the jail is left: %v", err)
	}
	if got, err := os.ReadFile(keep); err != nil || string(got) != "keep" {
		t.Errorf("what was linked to is gone: %q, %v", got, err)
	}
}

// nest makes folders inside each other, deeper than a path can name.
func nest(t *testing.T, j *Jail, depth int) {
	t.Helper()
	at, err := unix.Open(j.Path("."), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := unix.Mkdirat(at, "deep", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "deep", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(at)
		at = next
	}
	_ = unix.Close(at)
}

func TestRemoveEndsWithItsContext(t *testing.T) {
	b := newBase(t)
	newJail(t, b, "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Remove(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove = %v", err)
	}
}
