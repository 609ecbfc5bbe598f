//go:build hosttest

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/sandbox"
)

// holder is a program for a guest that holds what a freeze must not lose, answers questions on a TCP port, and prints how far it has
// counted. It is ready when it prints the first number.
const holder = `
import hashlib, mmap, os, socket, tempfile, threading, time
SIZE = 8 << 20
count = 0
file = tempfile.TemporaryFile()
file.write(b'what a file without a name says')
kept, wiped = mmap.mmap(-1, SIZE), mmap.mmap(-1, SIZE)
kept[:] = os.urandom(SIZE)
wiped[:] = b'\xa5' * SIZE

def rewrite():
    kept[:] = os.urandom(SIZE)
    return answers['kept']()

def wipe():
    wiped[:] = bytes(SIZE)
    return 'done'

def name():
    file.seek(0)
    return file.read().decode()

answers = {
    'count': lambda: count,
    'file': name,
    'kept': lambda: hashlib.sha256(kept[:]).hexdigest(),
    'rewrite': rewrite,
    'wipe': wipe,
    'not zero': lambda: SIZE - wiped[:].count(0),
    'random': lambda: os.urandom(32).hex(),
    'boot id': lambda: open('/proc/sys/kernel/random/boot_id').read().strip(),
    'hostname': socket.gethostname,
    'time': lambda: repr(time.time()),
}

def serve(s):
    while True:
        c, _ = s.accept()
        with c, c.makefile('rw') as f:
            for line in f:
                f.write(str(answers[line.strip()]()) + '\n')
                f.flush()

threading.Thread(target=serve, args=(socket.create_server(('', 7000)),), daemon=True).start()
while True:
    count += 1
    try:
        print(count, flush=True)
    except OSError:
        pass
    time.sleep(0.25)
`

// holderPort is where it listens.
const holderPort = 7000

// here is this host, in the hands of the test's own process.
func here(t *testing.T) *assembly.Parts {
	t.Helper()
	parts, err := assembly.New(assembly.Config{StateDir: stateDir(), Images: os.Getenv("WRENN_IMAGES"), Firecracker: "firecracker", Jailer: "jailer"})
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

// box is a sandbox of a test.
type box struct {
	*sandbox.Sandbox // in this process' hands; nil for one that the binary made, and while it is paused
	t                *testing.T
	parts            *assembly.Parts
	id               string
}

// own makes a box of a sandbox, which goes when the test ends.
func own(t *testing.T, parts *assembly.Parts, sb *sandbox.Sandbox) *box {
	b := &box{Sandbox: sb, t: t, parts: parts, id: sb.ID}
	t.Cleanup(b.remove)
	return b
}

// on is the box in the hands of a part of the test.
func (b *box) on(t *testing.T) *box {
	part := *b
	part.t = t
	return &part
}

func (b *box) remove() {
	if b.Sandbox != nil {
		b.Leave()
		b.Sandbox = nil
	}
	err := b.parts.Manager.Destroy(context.WithoutCancel(b.t.Context()), b.id, "the test is over")
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		b.t.Error(err)
	}
}

// create starts a sandbox in this process' hands.
func create(t *testing.T, parts *assembly.Parts, spec sandbox.Spec) *box {
	t.Helper()
	sb, err := parts.Manager.Create(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return own(t, parts, sb)
}

// base is what most sandboxes here are.
var base = sandbox.Spec{Template: "base", Keep: true}

// keptHolder has the binary make a sandbox that stays, with a holder in it.
func keptHolder(t *testing.T, args ...string) *box {
	t.Helper()
	return keptProgram(t, holder, args...)
}

// keptProgram has the binary make a sandbox that stays, with a program in it that is ready when it prints a line, which is 1.
func keptProgram(t *testing.T, program string, args ...string) *box {
	t.Helper()
	const start = `python3 -c "$0" >/tmp/out 2>&1 </dev/null & while ! [ -s /tmp/out ]; do sleep 0.05; done; cat /tmp/out`
	r := wrenn(t, append(append([]string{"run", "--keep"}, args...), "--", "sh", "-c", start, program)...).want(t, 0)
	b := &box{t: t, parts: here(t), id: idPattern.FindString(r.errOut)}
	t.Cleanup(b.remove)
	if b.id == "" || !strings.HasPrefix(r.out, "1\n") {
		t.Fatalf("no holder: %q, %q", r.out, r.errOut)
	}
	return b
}

// pause freezes the box.
func (b *box) pause() {
	b.t.Helper()
	if _, err := b.Pause(b.t.Context(), "a test"); err != nil {
		b.t.Fatal(err)
	}
	b.Sandbox = nil
}

// resume lets it go on.
func (b *box) resume() {
	b.t.Helper()
	sb, err := b.parts.Manager.Resume(b.t.Context(), b.id, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Sandbox = sb
}

// envd is a client of the guest's envd.
func (b *box) envd() *client.Client {
	c := client.New(b.Dial, b.Token)
	b.t.Cleanup(c.Close)
	return c
}

// sh runs a script in the guest and returns what it said.
func (b *box) sh(script string) result {
	b.t.Helper()
	var out, errOut strings.Builder
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	r, err := b.envd().Run(ctx, client.Command{Cmd: "sh", Args: []string{"-c", script}, Stdout: &out, Stderr: &errOut})
	if err != nil {
		b.t.Fatal(err)
	}
	return result{r.ExitCode, out.String(), errOut.String()}
}

// ask puts questions to the holder, and returns the answers.
func (b *box) ask(questions ...string) []string {
	b.t.Helper()
	answers, err := b.tryAsk(questions...)
	if err != nil {
		b.t.Fatalf("%s: %v", b.id, err)
	}
	return answers
}

func (b *box) tryAsk(questions ...string) (answers []string, err error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	conn, err := b.parts.Network.Dial(ctx, b.id, holderPort)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	lines := bufio.NewScanner(conn)
	for _, q := range questions {
		if _, err := io.WriteString(conn, q+"\n"); err != nil {
			return nil, err
		}
		if !lines.Scan() {
			return nil, fmt.Errorf("no answer to %q: %w", q, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
		}
		answers = append(answers, lines.Text())
	}
	return answers, nil
}

// stream is a command's output, a number a line, as it comes.
type stream struct {
	t      *testing.T
	pid    uint32
	lines  *bufio.Scanner
	cancel context.CancelCauseFunc
	done   chan error
}

// follow starts a holder in the box and follows its output, or joins the one that has the pid if it is not 0.
func (b *box) follow(pid uint32) *stream {
	b.t.Helper()
	ctx, cancel := context.WithCancelCause(b.t.Context())
	b.t.Cleanup(func() { cancel(nil) })
	out, in := io.Pipe()
	s := &stream{t: b.t, lines: bufio.NewScanner(out), cancel: cancel, done: make(chan error, 1)}
	command := client.Command{Cmd: "python3", Args: []string{"-c", holder}, Stdout: in, Stderr: b.t.Output(), Started: func(pid uint32) { s.pid = pid }}
	guest := b.envd()
	go func() {
		var err error
		if pid == 0 {
			_, err = guest.Run(ctx, command)
		} else {
			_, err = guest.Attach(ctx, pid, command)
		}
		_ = in.CloseWithError(err)
		s.done <- err
	}()
	return s
}

// next is the next number.
func (s *stream) next() int {
	s.t.Helper()
	if !s.lines.Scan() {
		s.t.Fatalf("the stream ended: %v", s.lines.Err())
	}
	n, err := strconv.Atoi(s.lines.Text())
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// cut ends the stream as the end of a machine does, and drops what still comes.
func (s *stream) cut() {
	s.t.Helper()
	s.cancel(errs.ErrUnavailable)
	for s.lines.Scan() {
	}
	if err := <-s.done; !errors.Is(err, errs.ErrUnavailable) {
		s.t.Errorf("a stream that was cut ended with %v", err)
	}
}

// refsIn are the references of a kind, in the folder of builds.
func refsIn(t *testing.T, kind string) []string {
	t.Helper()
	return namesIn(t, filepath.Join(stateDir(), "builds", "refs", kind))
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
