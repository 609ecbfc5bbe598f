package clone

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

const forked = "5,1234,5678,-;" + forkLine + "\n SUBSYSTEM=x\n"

// fakeLog is a log of records. Mark passes all of them.
type fakeLog struct {
	records []string
	marked  int
	err     error
}

func (l *fakeLog) Mark() error {
	l.marked++
	l.records = nil
	return l.err
}

func (l *fakeLog) Next(ctx context.Context) (string, error) {
	if l.err != nil {
		return "", l.err
	}
	if len(l.records) == 0 {
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	record := l.records[0]
	l.records = l.records[1:]
	return record, nil
}

// fake is a machine that writes down what is done to it. What fails names the part that does.
type fake struct {
	*Machine
	log   *fakeLog
	done  []string
	fails map[string]error
}

func newFake(records ...string) *fake {
	f := &fake{log: &fakeLog{records: records}, fails: map[string]error{}}
	f.Machine = &Machine{Log: f.log, Patience: 20 * time.Millisecond,
		Entropy: func(context.Context) (string, error) { return "no host", f.do("entropy") },
		Clock:   func() (time.Duration, error) { return -time.Minute, f.do("clock") },
		Name:    func(name string) error { return f.do("name " + name) },
		BootID:  func() error { return f.do("bootid") },
	}
	return f
}

func (f *fake) do(what string) error {
	f.done = append(f.done, what)
	name, _, _ := strings.Cut(what, " ")
	return f.fails[name]
}

func TestDistinguish(t *testing.T) {
	f := newFake("6,1,1,-;noise", forked, "6,2,2,-;later")
	r, err := f.Distinguish(t.Context(), Identity{Start: "a", Hostname: "box"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"entropy", "clock", "name box", "bootid"}; !slices.Equal(f.done, want) {
		t.Errorf("done %q, want %q", f.done, want)
	}
	var names []string
	for _, s := range r.Steps {
		names = append(names, s.Name+" "+s.Note)
	}
	if want := []string{"random ", "entropy no host", "clock ", "name ", "bootid "}; !slices.Equal(names, want) || r.Offset != -time.Minute {
		t.Errorf("reported %q, %v; want %q", names, r.Offset, want)
	}
}

// TestNothingWithoutAReseed shows that nothing is done to a machine whose kernel did not say that it reseeded, or said so before the
// freeze.
func TestNothingWithoutAReseed(t *testing.T) {
	f := newFake(forked)
	if err := f.Freeze(); err != nil || f.log.marked != 1 {
		t.Fatalf("Freeze = %v, marked %d times", err, f.log.marked)
	}
	_, err := f.Distinguish(t.Context(), Identity{Start: "a"})
	if !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "within 20ms") || f.done != nil {
		t.Errorf("got %v, done %q", err, f.done)
	}
	f.log.err = errors.New("gone")
	if _, err := f.Distinguish(t.Context(), Identity{Start: "a"}); !errors.Is(err, f.log.err) || f.done != nil {
		t.Errorf("a log that can't be read: got %v", err)
	}
	if err := f.Freeze(); !errors.Is(err, f.log.err) {
		t.Errorf("Freeze = %v", err)
	}
}

// TestAgain repeats what failed: the kernel says once for each start that it reseeded.
func TestAgain(t *testing.T) {
	f := newFake(forked)
	broken := errors.New("broken")
	for _, part := range []string{"entropy", "clock", "name", "bootid"} {
		f.done = nil
		f.fails = map[string]error{part: broken}
		_, err := f.Distinguish(t.Context(), Identity{Start: "a"})
		if last := f.done[len(f.done)-1]; !errors.Is(err, broken) || !strings.HasPrefix(last, part) || !strings.HasPrefix(err.Error(), part) {
			t.Errorf("%s fails: got %v after %q", part, err, f.done)
		}
	}
	f.fails = nil
	if _, err := f.Distinguish(t.Context(), Identity{Start: "a"}); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := f.Distinguish(t.Context(), Identity{Start: "b"}); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("another start: got %v", err)
	}
}

func TestWithoutAHostsClock(t *testing.T) {
	f := newFake(forked)
	f.fails["clock"] = os.ErrNotExist
	r, err := f.Distinguish(t.Context(), Identity{Start: "a"})
	if err != nil || r.Steps[2].Note == "" {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestTheEmptyStart is a start like others: the first one is not taken for it.
func TestTheEmptyStart(t *testing.T) {
	if _, err := newFake().Distinguish(t.Context(), Identity{}); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
