package sandbox

import (
	"errors"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot"
)

// StoredBytes is how many bytes of the disk named snapshots and warm builds take, with what they need of others. What only sandboxes need
// is not in it.
func (m *Manager) StoredBytes() (int64, error) {
	refs, err := m.builds.ListRefs()
	if err != nil {
		return 0, err
	}
	sandboxes, others := map[string]bool{}, map[string]bool{}
	for ref, build := range refs {
		if ref.Kind == refSandbox {
			sandboxes[build] = true
		} else {
			others[build] = true
		}
	}
	builds, err := m.builds.List()
	if err != nil {
		return 0, err
	}
	var total int64
	for _, build := range builds {
		if sandboxes[build] && !others[build] {
			continue
		}
		n, err := m.builds.Usage(build)
		if errors.Is(err, errs.ErrNotFound) {
			continue // collected meanwhile
		}
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// MakesWarm says whether Create makes a template's warm build first, for a spec that Check has filled in: the template has none yet.
func (m *Manager) MakesWarm(spec Spec) bool {
	if spec.Snapshot != "" || spec.Cold {
		return false
	}
	t, err := m.cfg.Templates.Get(spec.Template)
	if err != nil {
		return false
	}
	_, err = m.builds.GetRef(snapshot.Ref{Kind: refTemplate, Name: t.ID})
	return errors.Is(err, errs.ErrNotFound)
}
