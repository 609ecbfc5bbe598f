//go:build hosttest

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// self is a script that prints what a new process of a guest takes itself for.
const self = `
echo "random=$(python3 -c 'import os; print(os.urandom(32).hex())')"
echo "uuid=$(cat /proc/sys/kernel/random/uuid)"
echo "boot id=$(cat /proc/sys/kernel/random/boot_id)"
echo "hostname=$(hostname)"
echo "id=$WRENN_SANDBOX_ID"
token=$(curl -s -X PUT -H 'X-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
meta() { curl -s -H "X-metadata-token: $token" http://169.254.169.254/"$1"; }
echo "meta-id=$(meta WRENN_SANDBOX_ID)"
echo "meta-keys=$(meta '' | sort | tr '\n' ,)"
`

// clones are sandboxes that began from the same frozen one, and that one.
type clones struct {
	t    *testing.T
	list []*box
}

// eachApart fails the test if two of the clones have the same of anything that names them or that nobody may guess.
func (c clones) eachApart() {
	c.t.Helper()
	seen := map[string]string{}
	apart := func(b *box, what, value string) {
		if other := seen[what+" "+value]; value == "" || other != "" {
			c.t.Errorf("%s has %s %q, and so has %q", b.id, what, value, other)
		}
		seen[what+" "+value] = b.id
	}
	for _, b := range c.list {
		old := b.ask("random", "boot id", "hostname")
		fresh := b.sh(self).want(c.t, 0).fields()
		// Randomness of the process that was frozen and of a new one: none may be that of another, whoever of it.
		apart(b, "randomness", old[0])
		apart(b, "randomness", fresh["random"])
		apart(b, "uuid", fresh["uuid"])
		apart(b, "boot id", fresh["boot id"])
		apart(b, "token", b.Token)
		if old[1] != fresh["boot id"] || old[2] != b.id || fresh["hostname"] != b.id || fresh["id"] != b.id || fresh["meta-id"] != b.id {
			c.t.Errorf("%s takes itself for %v, and its old process for %v", b.id, fresh, old)
		}
		if fresh["meta-keys"] != "WRENN_HOSTNAME,WRENN_SANDBOX_ID,WRENN_START,WRENN_TEMPLATE_ID," {
			c.t.Errorf("%s has in its metadata %s", b.id, fresh["meta-keys"])
		}
	}
	c.tokensAreTheirOwn()
	c.placesAreTheirOwn()
}

// tokensAreTheirOwn shows each clone the token of another.
func (c clones) tokensAreTheirOwn() {
	c.t.Helper()
	for i, b := range c.list {
		other := client.New(b.Dial, c.list[(i+1)%len(c.list)].Token)
		defer other.Close()
		if _, err := other.List(c.t.Context()); !errors.Is(err, errs.ErrUnauthenticated) {
			c.t.Errorf("%s takes another's token: %v", b.id, err)
		}
	}
}

// placesAreTheirOwn looks at the slots and at what the machines run as.
func (c clones) placesAreTheirOwn() {
	c.t.Helper()
	records, err := c.list[0].parts.Manager.List()
	if err != nil {
		c.t.Fatal(err)
	}
	slots, uids := map[int]bool{}, map[int]bool{}
	for _, b := range c.list {
		i := slices.IndexFunc(records, func(r sandbox.Record) bool { return r.ID == b.id })
		if i < 0 || records[i].Slot == nil {
			c.t.Fatalf("%s has no slot", b.id)
		}
		who, err := b.parts.VMM.(vmm.Inspector).Inspect(c.t.Context(), b.id)
		if err != nil {
			c.t.Fatal(err)
		}
		slots[*records[i].Slot], uids[who.UID] = true, true
		if who.UID != b.parts.UIDBase+*records[i].Slot {
			c.t.Errorf("%s has slot %d and uid %d", b.id, *records[i].Slot, who.UID)
		}
	}
	if len(slots) != len(c.list) || len(uids) != len(c.list) {
		c.t.Errorf("%d sandboxes have slots %v and uids %v", len(c.list), slices.Sorted(maps.Keys(slots)), slices.Sorted(maps.Keys(uids)))
	}
}

// TestFourFromOneSnapshot starts four sandboxes at once from a named snapshot.
func TestFourFromOneSnapshot(t *testing.T) {
	nothingLeft(t)
	parts := here(t)
	source := create(t, parts, base)
	s := source.follow(0)
	before := s.next()
	kept := source.ask("kept")[0]
	source.sh("echo first >/home/user/file; sync").want(t, 0)
	if _, err := source.Snapshot(t.Context(), "four"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteSnapshot(t, parts, "four") })
	if n := source.follow(s.pid).next(); n < before { // it runs on, and what it runs can be followed
		t.Errorf("the source went back from %d to %d", before, n)
	}
	if _, err := source.Snapshot(t.Context(), "four"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("the same name again: %v", err)
	}

	all := clones{t, []*box{source}}
	started := make([]*sandbox.Sandbox, 4)
	failed := make([]error, len(started))
	var wg sync.WaitGroup
	for i := range started {
		wg.Go(func() {
			started[i], failed[i] = parts.Manager.Create(t.Context(), sandbox.Spec{Snapshot: "four", Keep: true}, nil)
		})
	}
	wg.Wait()
	for _, sb := range started {
		if sb != nil {
			all.list = append(all.list, own(t, parts, sb))
		}
	}
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
	for i, b := range all.list {
		got := b.ask("kept", "count")
		if n, err := strconv.Atoi(got[1]); got[0] != kept || err != nil || n < before {
			t.Errorf("%s holds %v, want %s and %d or more", b.id, got, kept, before)
		}
		if out := b.sh(fmt.Sprintf("cat /home/user/file; echo %d >>/home/user/file; sync", i)).want(t, 0).out; out != "first\n" {
			t.Errorf("%s sees another's writes: %q", b.id, out)
		}
	}
	for i, b := range all.list {
		if out := b.sh("cat /home/user/file").want(t, 0).out; out != fmt.Sprintf("first\n%d\n", i) {
			t.Errorf("%s has %q on its disk", b.id, out)
		}
	}
	all.eachApart()
	inUse(t, "four", all.list[1:])
}

// inUse has the binary refuse to delete a snapshot that sandboxes were started from.
func inUse(t *testing.T, name string, users []*box) {
	t.Helper()
	r := wrenn(t, "snapshot", "rm", name).want(t, 125)
	for _, b := range users {
		if !strings.Contains(r.errOut, b.id) {
			t.Errorf("%q does not name %s", r.errOut, b.id)
		}
	}
	if r := wrenn(t, "snapshot", "ls").want(t, 0); !strings.Contains(r.out, name) {
		t.Errorf("the snapshot is gone: %q", r.out)
	}
}

// deleteSnapshot removes a snapshot when its users are gone.
func deleteSnapshot(t *testing.T, parts *assembly.Parts, name string) {
	err := parts.Manager.DeleteSnapshot(context.WithoutCancel(t.Context()), name)
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

// TestForksAreApart forks a running sandbox. Neither clone is the other, or the one that they began from.
func TestForksAreApart(t *testing.T) {
	nothingLeft(t)
	parts := here(t)
	source := create(t, parts, base)
	s := source.follow(0)
	s.next()
	kept := source.ask("kept")[0]
	token := source.Token
	forked, _, err := source.Fork(t.Context(), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := clones{t, []*box{source}}
	for _, f := range forked {
		if f.Err != nil {
			t.Error(f.Err)
			continue
		}
		b := own(t, parts, f.Sandbox)
		all.list = append(all.list, b)
		if got := b.ask("kept")[0]; got != kept {
			t.Errorf("%s holds %s, want %s", b.id, got, kept)
		}
		old := client.New(b.Dial, token)
		defer old.Close()
		if _, err := old.List(t.Context()); !errors.Is(err, errs.ErrUnauthenticated) {
			t.Errorf("%s takes its parent's token: %v", b.id, err)
		}
	}
	all.eachApart()
	if refs := refsIn(t, "fork"); len(refs) > 0 {
		t.Errorf("references of forks are left: %v", refs)
	}
}
