//go:build hosttest

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// model is what must be: some sandboxes, what each of them has in memory and on disk, and the snapshots.
type model struct {
	*killer
	rand  *rand.Rand
	boxes []*modelBox
	names map[string]string // of each snapshot: what a sandbox has that starts from it

	seen  []string // points that were passed, to be killed at
	next  int      // of whatever needs a name of its own
	stats map[string]int
}

// modelBox is a place for a sandbox.
type modelBox struct {
	id     string // "" while there is none
	paused bool
	word   string // in memory and on disk; "" for none
	from   string // the snapshot that it began from, or its source did
}

// deed is an operation of one round.
type deed struct {
	what string
	// do asks for it.
	do func() error
	// done says what is so after it. It is called when do was without error.
	done func()
	// broken finds out what is so when the agent was killed in it, fails the test for what must not be, and brings it to an end.
	broken func()
}

// boxesMax is how many sandboxes there are at a time.
const boxesMax = 3

// TestRandomOperations does random operations on several sandboxes at a time, kills the agent now and then, at a step or at any time, and
// compares with a model after each round. WRENN_SEED has it begin with the same choices, WRENN_CHAOS_TIME says how long it goes on.
func TestRandomOperations(t *testing.T) {
	nothingLeft(t)
	seed, limit := uint64(time.Now().UnixNano()), 30*time.Second
	var err error
	if text := os.Getenv("WRENN_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("WRENN_CHAOS_TIME"); text != "" {
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("WRENN_SEED=%d", seed)
	m := &model{killer: newKiller(t), rand: rand.New(rand.NewPCG(seed, 0)), names: map[string]string{}, stats: map[string]int{}}
	defer m.end()
	for range boxesMax {
		m.boxes = append(m.boxes, &modelBox{})
	}
	m.up()
	m.destroy(m.fresh()) // so that there is a warm build
	rounds := 0
	for began := time.Now(); rounds < 2 || time.Since(began) < limit; rounds++ {
		m.round()
		if t.Failed() {
			m.tell()
			t.Fatalf("round %d of WRENN_SEED=%d", rounds, seed)
		}
	}
	t.Logf("%d rounds: %v", rounds, m.stats)
	if m.stats["create"] == 0 {
		t.Error("nothing was done")
	}
}

// round does one operation on each sandbox, all at a time, and looks whether what is so is what must be.
func (m *model) round() {
	m.t.Helper()
	deeds := m.plan()
	var what []string
	for _, d := range deeds {
		what = append(what, d.what)
		m.stats[strings.Fields(d.what)[0]]++
	}
	how, hit := m.threaten()
	m.t.Logf("%s; %s", strings.Join(what, ", "), how)
	failed := make([]error, len(deeds))
	var all sync.WaitGroup
	for i, d := range deeds {
		all.Go(func() { failed[i] = d.do() })
	}
	all.Wait()
	killed := hit() || errors.Join(failed...) != nil && how != calm && m.gone()
	if killed {
		m.stats["kill"]++
		m.again()
	}
	m.arm("")
	m.seen = append(m.seen, m.passed()...)
	for i, d := range deeds {
		switch {
		case failed[i] == nil:
			d.done()
		case killed:
			d.broken()
		default:
			m.t.Errorf("%s: %v", d.what, failed[i])
		}
	}
	m.compare()
}

const calm = "nobody is killed"

// threaten has the agent killed in this round, mostly, and says how, and then whether it was.
func (m *model) threaten() (how string, hit func() bool) {
	dead := func() bool { return !m.alive() }
	switch n := m.rand.IntN(10); {
	case n < 3:
		return calm, dead
	case n < 7 && len(m.seen) > 0:
		point := m.seen[m.rand.IntN(len(m.seen))]
		if m.rand.IntN(3) == 0 {
			point += "#2"
		}
		m.arm(point)
		return "killed at " + point, dead
	}
	after, cmd := time.Duration(m.rand.IntN(4000))*time.Millisecond, m.cmd
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	return fmt.Sprintf("killed after %v", after), func() bool { return !timer.Stop() }
}

// again starts the next agent, of which some are killed while they take over.
func (m *model) again() {
	<-m.exited
	m.arm("")
	for m.rand.IntN(4) == 0 {
		m.stats["kill while it takes over"]++
		m.launch()
		time.Sleep(time.Duration(m.rand.IntN(1500)) * time.Millisecond)
		m.kill()
	}
	m.up()
}

// plan chooses an operation for each sandbox.
func (m *model) plan() []deed {
	var deeds []deed
	taken, fixed := map[*modelBox]bool{}, false // fixed: a snapshot is started from, so none is deleted
	for _, b := range m.boxes {
		if taken[b] {
			continue
		}
		taken[b] = true
		var d deed
		switch n := m.rand.IntN(10); {
		case b.id == "":
			d = m.createIn(b)
			fixed = true
		case b.paused && n < 7:
			d = m.resumed(b)
		case b.paused && n < 9:
			continue
		case b.paused, n < 2:
			d = m.destroyed(b)
		case n < 4:
			d = m.paused(b)
		case n < 6:
			d = m.frozen(b)
		case n < 8 && m.free(taken) != nil:
			other := m.free(taken)
			taken[other] = true
			d = m.forked(b, other)
		default:
			d = m.written(b)
		}
		deeds = append(deeds, d)
	}
	if !fixed && len(m.names) > 0 && m.rand.IntN(3) == 0 {
		deeds = append(deeds, m.forgotten())
	}
	return deeds
}

// free is a place without a sandbox.
func (m *model) free(taken map[*modelBox]bool) *modelBox {
	for _, b := range m.boxes {
		if b.id == "" && !taken[b] {
			return b
		}
	}
	return nil
}

func (m *model) createIn(b *modelBox) deed {
	m.next++
	req, next := &pb.CreateRequest{Template: "base", IdempotencyKey: fmt.Sprint("model ", m.next)}, modelBox{}
	if names := slices.Sorted(maps.Keys(m.names)); len(names) > 0 && m.rand.IntN(2) == 0 {
		name := names[m.rand.IntN(len(names))]
		req.Template, req.Snapshot = "", name
		next.word, next.from = m.names[name], name
	}
	do := func() (err error) {
		next.id, err = m.create(req)
		return err
	}
	done := func() { *b = next }
	return deed{"create " + req.GetTemplate() + req.GetSnapshot(), do, done, func() {
		m.must(do())
		done()
	}}
}

// settles is what became of a pause or a resume that was broken off.
func (m *model) settles(b *modelBox) func() {
	return func() {
		state := m.states()[b.id]
		if state != pb.State_STATE_RUNNING && state != pb.State_STATE_PAUSED {
			m.t.Errorf("%s is %s", b.id, state)
		}
		b.paused = state == pb.State_STATE_PAUSED
	}
}

func (m *model) paused(b *modelBox) deed {
	return deed{"pause " + b.id, func() error { return m.pause(b.id) }, func() { b.paused = true }, m.settles(b)}
}

func (m *model) resumed(b *modelBox) deed {
	return deed{"resume " + b.id, func() error { return m.resume(b.id) }, func() { b.paused = false }, m.settles(b)}
}

func (m *model) destroyed(b *modelBox) deed {
	return deed{"destroy " + b.id, func() error { return m.tryDestroy(b.id) }, func() { *b = modelBox{} }, func() {
		if state, there := m.states()[b.id]; there {
			if paused := state == pb.State_STATE_PAUSED; paused != b.paused || !paused && state != pb.State_STATE_RUNNING {
				m.t.Errorf("%s is %s, and was paused: %v", b.id, state, b.paused)
			}
			m.must(m.tryDestroy(b.id))
		}
		*b = modelBox{}
	}}
}

func (m *model) frozen(b *modelBox) deed {
	m.next++
	name := fmt.Sprint("model-", m.next)
	return deed{"snapshot " + b.id, func() error { return m.snapshot(b.id, name) }, func() { m.names[name] = b.word }, func() {
		if slices.Contains(m.snapshots(), name) {
			m.names[name] = b.word
		}
	}}
}

func (m *model) forked(b, other *modelBox) deed {
	clone := modelBox{word: b.word, from: b.from}
	do := func() error {
		ctx, cancel := m.call()
		defer cancel()
		resp, err := m.Sandboxes.Fork(ctx, forkOf(b.id))
		if err == nil {
			clone.id = resp.Msg.GetClones()[0].GetSandbox().GetId()
		}
		return err
	}
	return deed{"fork " + b.id, do, func() { *other = clone }, func() {
		for id := range m.states() {
			if !slices.ContainsFunc(m.boxes, func(b *modelBox) bool { return b.id == id }) && !m.madeNow(id) {
				clone.id = id
				*other = clone
			}
		}
	}}
}

// madeNow says whether a sandbox has a key, and so was created, which no clone was.
func (m *model) madeNow(id string) bool {
	r, err := here(m.t).Manager.Get(id)
	return err == nil && bytes.Contains(r.Note, []byte(`"key"`))
}

func (m *model) written(b *modelBox) deed {
	m.next++
	word := fmt.Sprint("word-", m.next)
	do := func() error {
		_, err := m.shell(b.id, fmt.Sprintf(
			"for d in /dev/shm /var/tmp; do echo %s > $d/.$$ && sync $d/.$$ && mv $d/.$$ $d/word || exit 1; done", word))
		return err
	}
	done := func() { b.word = word }
	return deed{"write " + b.id, do, done, func() { // it may go on in the guest, or may not have begun
		if got, err := m.words(b); err != nil {
			m.t.Errorf("%s: %v", b.id, err)
		} else {
			for _, w := range got {
				if w != b.word && w != word {
					m.t.Errorf("%s has %q, want %q or %q", b.id, got, b.word, word)
				}
			}
		}
		m.must(do())
		done()
	}}
}

func (m *model) forgotten() deed {
	names := slices.Sorted(maps.Keys(m.names))
	name := names[m.rand.IntN(len(names))]
	used := slices.ContainsFunc(m.boxes, func(b *modelBox) bool { return b.from == name })
	do := func() error {
		err := m.deleteSnapshot(name)
		if used && errors.Is(err, errs.ErrFailedPrecondition) {
			return nil
		}
		return err
	}
	done := func() {
		if !used || !slices.Contains(m.snapshots(), name) {
			delete(m.names, name)
		}
	}
	return deed{"delete snapshot " + name, do, done, func() {
		if !slices.Contains(m.snapshots(), name) {
			delete(m.names, name)
		}
	}}
}

// shell runs a script in a sandbox.
func (m *model) shell(id, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.t.Context()), patience)
	defer cancel()
	var out bytes.Buffer
	r, err := m.Exec(ctx, &pb.ExecRequest{Id: id, Cmd: "sh", Args: []string{"-c", script}}, client.Streams{Stdout: &out, Stderr: &out})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("%s: %s", r.Status, out.String())
	}
	return out.String(), err
}

// words are what a sandbox has in memory and on disk.
func (m *model) words(b *modelBox) ([]string, error) {
	out, err := m.shell(b.id, "for d in /dev/shm /var/tmp; do [ -e $d/word ] && cat $d/word || echo; done")
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n"), err
}

// compare fails the test unless everything is as the model says, and nothing else is on the host.
func (m *model) compare() {
	m.t.Helper()
	want := map[string]pb.State{}
	for _, b := range m.boxes {
		switch {
		case b.id == "":
		case b.paused:
			want[b.id] = pb.State_STATE_PAUSED
		default:
			want[b.id] = pb.State_STATE_RUNNING
		}
	}
	if got := m.states(); !maps.Equal(got, want) {
		m.t.Errorf("the sandboxes are %v, want %v", got, want)
		return
	}
	if got := slices.Sorted(slices.Values(m.snapshots())); !slices.Equal(got, slices.Sorted(maps.Keys(m.names))) {
		m.t.Errorf("the snapshots are %v, want %v", got, m.names)
	}
	for _, b := range m.boxes {
		if b.id == "" || b.paused {
			continue
		}
		if got, err := m.words(b); err != nil || !slices.Equal(got, []string{b.word, b.word}) {
			m.t.Errorf("%s has %q in memory and on disk, want %q: %v", b.id, got, b.word, err)
		}
	}
	m.settled()
}
