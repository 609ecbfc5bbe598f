//go:build hosttest

package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/vmm"
)

// record is the box's record.
func (b *box) record() sandbox.Record {
	b.t.Helper()
	records, err := b.parts.Manager.List()
	if err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(records, func(r sandbox.Record) bool { return r.ID == b.id })
	if i < 0 {
		b.t.Fatalf("%s is lost", b.id)
	}
	return records[i]
}

// state is what its record says.
func (b *box) state() sandbox.State { return b.record().State }

// refused has a resume refused for a reason, before anything is made for it. The box stays paused.
func (b *box) refused(kind error, words ...string) {
	t := b.t
	t.Helper()
	var told []string
	sb, err := b.parts.Manager.Resume(t.Context(), b.id, func(s vmm.Step) { told = append(told, s.Name) })
	if err == nil {
		sb.Leave()
		t.Fatal("it was resumed")
	}
	if !errors.Is(err, kind) {
		t.Errorf("%v, want %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if len(told) > 0 || b.state() != sandbox.Paused {
		t.Errorf("it is %s, after the steps %v", b.state(), told)
	}
}

// replaced gives a small file another content for as long as a test takes.
func replaced(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) {
		if err := os.WriteFile(path, data, 0o400); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { put(whole) })
	put(change(bytes.Clone(whole)))
}

// flipped changes a byte of a file, where it has data, for as long as a test takes.
func flipped(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at, err := f.Seek(0, unix.SEEK_DATA)
	b := make([]byte, 1)
	if err == nil {
		_, err = f.ReadAt(b, at)
	}
	if err == nil {
		_, err = f.WriteAt([]byte{b[0] ^ 0x40}, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { write(t, path, b, at) })
}

// cut takes the last byte of a file for as long as a test takes.
func cut(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	b := make([]byte, 1)
	if err == nil {
		_, err = f.ReadAt(b, size-1)
	}
	if err == nil {
		err = os.Truncate(path, size-1)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { write(t, path, b, size-1) })
}

func write(t *testing.T, path string, data []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(data, at)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Error(err)
	}
}

// TestDamagedBuilds pauses a sandbox and damages each file that it consists of: a resume is refused and names the file, and once the
// file is whole again the sandbox goes on. Nor is a build of another host started.
func TestDamagedBuilds(t *testing.T) {
	nothingLeft(t)
	b := keptHolder(t, "--cold", "--memory", "192M")
	kept, count := b.ask("kept")[0], 0
	hangUp(t, b)
	b.whole(t, kept, &count)
	if b.state() != sandbox.Paused {
		wrenn(t, "pause", b.id).want(t, 0)
	}
	build := filepath.Join(stateDir(), "builds", b.record().Build)
	for _, name := range append(manifest.Names(), manifest.Name) {
		path := filepath.Join(build, name)
		t.Run("a flipped bit in "+name, func(t *testing.T) {
			flipped(t, path)
			b.on(t).refused(errs.ErrCorrupt, name)
		})
		t.Run("a byte less of "+name, func(t *testing.T) {
			cut(t, path)
			b.on(t).refused(errs.ErrCorrupt, name)
		})
	}
	t.Run("another host's", func(t *testing.T) {
		replaced(t, filepath.Join(build, manifest.Name), func(data []byte) []byte {
			m, err := manifest.Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			m.Host.CPU.Model++
			m.Host.KernelRelease = "9.9.9"
			if data, err = m.Encode(); err != nil {
				t.Fatal(err)
			}
			return data
		})
		b.on(t).refused(errs.ErrFailedPrecondition, "cpu model", "host kernel", "9.9.9")
	})
	r := wrenn(t, "resume", b.id).want(t, 0)
	t.Log(r.errOut)
	b.whole(t, kept, &count)
	wrenn(t, "pause", b.id).want(t, 0)
	// To delete what is paused takes no machine.
	wrenn(t, "--firecracker", "/nope", "--jailer", "/nope", "rm", b.id).want(t, 0)
}

// hangUp ends 'wrenn pause' in the middle: it finishes, or the sandbox runs on. Then the box runs.
func hangUp(t *testing.T, b *box) {
	t.Helper()
	cmd := command(t, nil, "pause", b.id)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.awaitState(sandbox.Pausing)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	err := cmd.Wait()
	switch s := b.state(); {
	case s == sandbox.Paused && err == nil:
		wrenn(t, "resume", b.id).want(t, 0)
	case s != sandbox.Running || err == nil:
		t.Fatalf("after a caller left it is %s: %v", s, err)
	}
}

// awaitState returns when the box's record says so. The record is replaced as a whole, which is seen by reading it again.
func (b *box) awaitState(s sandbox.State) {
	b.t.Helper()
	for b.state() != s {
		if err := b.t.Context().Err(); err != nil {
			b.t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// TestDeadPager kills the page-fault server of a sandbox while a command runs in it, and while nobody looks.
func TestDeadPager(t *testing.T) {
	nothingLeft(t)
	watched, alone := create(t, here(t), base), create(t, here(t), base)
	for _, b := range []*box{watched, alone} {
		b.Leave()
		b.Sandbox = nil
	}
	kill := func(b *box) {
		if err := syscall.Kill(b.record().Pager.PID, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	cmd := command(t, nil, "exec", watched.id, "--", "sh", "-c", "echo started; exec sleep 1000")
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		kill(watched)
		return len(p), nil
	})
	if r := finish(t, cmd).want(t, 125); !strings.Contains(r.errOut, "page-fault server") {
		t.Errorf("stderr = %q", r.errOut)
	}
	kill(alone)
	if r := wrenn(t, "exec", alone.id, "--", "true").want(t, 125); !strings.Contains(r.errOut, "pager") {
		t.Errorf("stderr = %q", r.errOut)
	}
	for _, b := range []*box{watched, alone} {
		if s := b.state(); s != sandbox.Failed {
			t.Errorf("it is %s", s)
		}
		if _, err := b.parts.VMM.Recover(t.Context(), *b.record().Machine); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("its machine is there, or %v", err)
		}
		if r := wrenn(t, "exec", b.id, "--", "true").want(t, 125); !strings.Contains(r.errOut, "failed (") {
			t.Errorf("a second time it does not say why: %q", r.errOut)
		}
		wrenn(t, "rm", b.id).want(t, 0)
	}
}

// TestDeadMachineInAPause kills Firecracker in the middle of a pause: the sandbox has failed, and the reason is told.
func TestDeadMachineInAPause(t *testing.T) {
	nothingLeft(t)
	b := create(t, here(t), base)
	pid := b.record().Machine.PID
	paused := make(chan error, 1)
	go func() {
		_, err := b.Pause(context.WithoutCancel(t.Context()), "a test")
		paused <- err
	}()
	b.awaitState(sandbox.Pausing)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	err := <-paused
	if !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "the machine ended") || b.state() != sandbox.Failed {
		t.Errorf("%v; it is %s", err, b.state())
	}
	noHalves(t)
}

// TestFullDisk lets a state folder on a small file system run full: a pause says so and the sandbox runs on, and to remove it takes
// no room.
func TestFullDisk(t *testing.T) {
	nothingLeft(t)
	const dir = "/tmp/wrenn-small"
	small(t, dir)
	state := []string{"WRENN_STATE_DIR=" + dir}
	b := &box{t: t}
	r := finish(t, command(t, state, "run", "--keep", "--cold", "--memory", "192M", "--", "sh", "-c", "sync")).want(t, 0)
	b.id = idPattern.FindString(r.errOut)
	in := func(args ...string) result { return finish(t, command(t, state, args...)) }
	defer in("host", "sweep", "--all")

	filler := filepath.Join(dir, "filler")
	fill(t, dir, filler, 4<<20)
	if r := in("pause", b.id).want(t, 125); !strings.Contains(r.errOut, errs.ErrResourceExhausted.Error()) {
		t.Errorf("stderr = %q", r.errOut)
	}
	for _, name := range namesIn(t, filepath.Join(dir, "builds")) {
		if strings.HasPrefix(name, ".") {
			t.Errorf("%s is left", name)
		}
	}
	if r := in("exec", b.id, "--", "echo", "on").want(t, 0); r.out != "on\n" {
		t.Errorf("it does not run on: %q", r.out)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	in("pause", b.id).want(t, 0)
	fill(t, dir, filler, 0)
	in("rm", b.id).want(t, 0)
	if r := in("ls").want(t, 0); strings.Contains(r.out, b.id) {
		t.Errorf("it is there still: %q", r.out)
	}
}

// small mounts a small file system.
func small(t *testing.T, dir string) {
	t.Helper()
	image := dir + ".img"
	t.Cleanup(func() {
		for _, err := range []error{unix.Unmount(dir, 0), os.Remove(dir), os.Remove(image)} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<30)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
}

// fill writes a file until so many bytes are free.
func fill(t *testing.T, dir, path string, free int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); ; {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if int64(st.Bavail)*st.Bsize <= free+int64(len(chunk)) && len(chunk) > 4096 {
			chunk = chunk[:4096]
		}
		if int64(st.Bavail)*st.Bsize <= free {
			return
		}
		if _, err := f.Write(chunk); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
