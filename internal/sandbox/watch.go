package sandbox

import (
	"context"
	"time"

	"wrenn.dev/wrenn/internal/cleanup"
)

// Watch has changed called for every change of state that this manager puts on disk, and for the end of each sandbox that it
// takes apart, in the order of each sandbox. It must not block. Call Watch before anything else.
func (m *Manager) Watch(changed func(id string, c Change)) { m.changed = changed }

// WatchWrites has wrote called for every record that this manager puts on disk or fails to, with the time that it took. It must not block.
// Call WatchWrites before anything else.
func (m *Manager) WatchWrites(wrote func(took time.Duration, err error)) { m.wrote = wrote }

// Ended is closed when the sandbox has ended by itself and that is on record. It stays open when it is paused, left or destroyed.
func (s *Sandbox) Ended() <-chan struct{} { return s.over }

// watch puts on record when the machine ends. When its pager does, it ends the machine: its threads would sleep for ever. A pager that
// left is not missed. Once the sandbox is given up, its id may be another machine's, and nothing is ended any more.
func (s *Sandbox) watch() {
	machine, pagerDied := s.Machine, diedWithout(s.left, s.pager)
	go func() {
		select {
		case <-s.left:
			return
		case <-machine.Done():
			s.lost()
			return
		case <-pagerDied:
		}
		select {
		case <-s.left:
			return
		case <-machine.Done(): // it went first, and its pager with it
		default:
			close(s.pagerLost)
			_ = cleanup.Do(context.Background(), machine.Kill)
		}
		s.lost()
	}()
}

// diedWithout is closed when a pager has ended that its machine still needs. It is followed until over is closed; nil is no pager.
func diedWithout(over <-chan struct{}, pager Pager) <-chan struct{} {
	if pager == nil {
		return nil
	}
	died := make(chan struct{})
	go func() {
		select {
		case <-over:
		case <-pager.Done():
			if !pager.Left() {
				close(died)
			}
		}
	}()
	return died
}

// lost puts on record that the sandbox has failed, unless an operation has ended it meanwhile.
func (s *Sandbox) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellEnd()
}

// tellEnd puts on record that a sandbox that was running has ended, if it has.
// Preconditions: s.mu is held.
func (s *Sandbox) tellEnd() {
	if s.folder == nil || s.record.State != Running {
		return
	}
	select {
	case <-s.Machine.Done():
		_ = s.ended(s.Died())
	default:
	}
}

// Held says whether the sandbox is still in this process' hands: it was not paused, left or destroyed.
func (s *Sandbox) Held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.folder != nil
}

// Clear removes all that a sandbox which has ended by itself has on the host. Its record stays until Manager.Destroy, and says why,
// and so does what its machine wrote last.
func (s *Sandbox) Clear(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folder == nil {
		return s.gone()
	}
	s.folder.keepLogs(s.Machine)
	s.close()
	if err := s.manager.clear(ctx, s.folder, s.record); err != nil {
		return err
	}
	s.folder.release()
	s.folder = nil
	return nil
}
