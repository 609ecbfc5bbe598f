package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/template"
)

// maxUsers is how many users of something an error names.
const maxUsers = 10

// templateLock opens the lock that who starts from a template shares, and who deletes it has alone.
func (m *Manager) templateLock(name string) (*os.File, error) {
	if err := template.CheckName(name); err != nil {
		return nil, err
	}
	return m.lockFile(name + ".starts")
}

// keepTemplate keeps a template from being deleted until its start has come to an end: from then on the record says what it needs. It waits for a
// deletion that is under way, which may yet be refused. The empty name is no template.
func (m *Manager) keepTemplate(ctx context.Context, name string) (release func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := m.templateLock(name)
	if err != nil {
		return nil, err
	}
	return locked(ctx, f, unix.LOCK_SH)
}

// DeleteTemplate removes a template with its warm build, and those of its files that no other template has. ErrNotFound when there is none;
// ErrFailedPrecondition, with some of them, while sandboxes, snapshots or other builds need one of those files, or one starts from it.
func (m *Manager) DeleteTemplate(ctx context.Context, name string) error {
	if _, _, err := m.cfg.Templates.Own(name); err != nil { // before there is a lock of any name
		return err
	}
	f, err := m.templateLock(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("template %q is used by a sandbox that starts: %w: %w", name, err, errs.ErrFailedPrecondition)
	}
	t, own, err := m.cfg.Templates.Own(name)
	if err != nil {
		return err
	}
	warm, err := m.ownWarm(t)
	if err != nil {
		return err
	}
	users, err := m.usersOf(own, warm)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("template %q is used by %s: %w", name, strings.Join(users[:min(len(users), maxUsers)], ", "), errs.ErrFailedPrecondition)
	}
	if warm != (snapshot.Ref{}) {
		if err := m.builds.DeleteRef(ctx, warm); err != nil {
			return fmt.Errorf("template %q: %w", name, err)
		}
	}
	if err := m.cfg.Templates.Delete(ctx, name, own); err != nil {
		return err
	}
	_ = m.collect(ctx) // as in Destroy
	return nil
}

// ownWarm is the reference to the warm build of a template, zero when another template is the same and has it as well.
func (m *Manager) ownWarm(t template.Template) (snapshot.Ref, error) {
	list, err := m.Templates()
	if err != nil {
		return snapshot.Ref{}, err
	}
	for _, other := range list {
		if other.ID == t.ID && other.Name != t.Name {
			return snapshot.Ref{}, nil
		}
	}
	return snapshot.Ref{Kind: refTemplate, Name: t.ID}, nil
}

// usersOf are the names of what needs one of a template's files, but for its own warm build.
func (m *Manager) usersOf(files []template.Blob, warm snapshot.Ref) ([]string, error) {
	digests := map[string]bool{}
	for _, b := range files {
		digests[b.Digest] = true
	}
	needs := func(p manifest.Machine) bool {
		return digests[p.Kernel] || digests[p.Initramfs] || digests[p.Modules] || digests[p.RootFS]
	}
	users := map[string]bool{}
	records, err := m.List()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		switch r.State {
		case Failed, Lost, Stopped: // it starts no more
		case Unreadable: // nobody knows what it needs
			users["sandbox "+r.ID] = len(digests) > 0
		default:
			users["sandbox "+r.ID] = needs(r.Parts)
		}
	}
	refs, err := m.builds.ListRefs()
	if err != nil {
		return nil, err
	}
	for ref, build := range refs {
		if ref == warm {
			continue
		}
		parts, err := m.builds.MachineOf(build)
		switch {
		case errors.Is(err, errs.ErrNotFound): // collected meanwhile
		case errors.Is(err, errs.ErrCorrupt):
			users[userOf(ref)] = len(digests) > 0
		case err != nil:
			return nil, err
		default:
			users[userOf(ref)] = users[userOf(ref)] || needs(parts)
		}
	}
	maps.DeleteFunc(users, func(_ string, uses bool) bool { return !uses })
	return slices.Sorted(maps.Keys(users)), nil
}

// userOf is what has a reference.
func userOf(ref snapshot.Ref) string {
	switch ref.Kind {
	case refSandbox, refSnapshot:
		return ref.Kind + " " + ref.Name
	case refFork:
		return "a fork of " + ref.Name
	}
	return "build " + ref.String()
}
