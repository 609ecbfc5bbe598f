package filesystem

import (
	"context"
	"crypto/rand"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// CreateWatcher watches a folder, as Watch does, for who comes back with the id that it returns. It lasts until RemoveWatcher.
func (m *Manager) CreateWatcher(ctx context.Context, u user.User, o WatchOptions) (id string, err error) {
	w, err := m.Watch(ctx, u, o)
	if err != nil {
		return "", err
	}
	id = rand.Text()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetEnded()
	m.watchers[id] = w
	return id, nil
}

// forgetEnded makes room when nobody asks for watchers that have ended. Preconditions: mu is held.
func (m *Manager) forgetEnded() {
	if len(m.watchers) < 2*m.limits.Watchers {
		return
	}
	for id, w := range m.watchers {
		if _, live := m.watches[w]; !live {
			delete(m.watchers, id)
		}
	}
}

// WatcherEvents takes a watcher's events since the last call. ErrNotFound when there is no such watcher; when it has ended and all is
// taken, why.
func (m *Manager) WatcherEvents(id string) ([]Event, error) {
	m.mu.Lock()
	w, ok := m.watchers[id]
	m.mu.Unlock()
	if !ok {
		return nil, noWatcher(id)
	}
	return w.Take()
}

// RemoveWatcher ends a watcher. ErrNotFound when there is none.
func (m *Manager) RemoveWatcher(id string) error {
	m.mu.Lock()
	w, ok := m.watchers[id]
	delete(m.watchers, id)
	m.mu.Unlock()
	if !ok {
		return noWatcher(id)
	}
	w.Close()
	return nil
}

func noWatcher(id string) error {
	return fault.New(errs.ErrNotFound, "watcher with id '%.64s' not found", id)
}
