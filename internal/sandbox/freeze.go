package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/vmm"
)

// freezeTime bounds one freeze: a fixed part, and more for each GiB of memory and disk that may have to be written.
func freezeTime(parts manifest.Machine) time.Duration {
	gib := time.Duration(int64(parts.MemoryMiB)>>10 + parts.DiskBytes>>30 + 1)
	return 5*time.Minute + gib*time.Minute
}

// detached is a context of an operation that goes on although its caller has left: once it has begun to change a sandbox, half of
// it is no state to be in.
func detached(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it took over %v: %w", limit, errs.ErrUnavailable))
}

// freeze makes a build of the running sandbox and points the references to it, and one of the sandbox's own. When it succeeds, the
// machine stands still. When it fails, the sandbox runs as before and no file is left.
//
// Preconditions: s.mu is held and the sandbox is running.
func (s *Sandbox) freeze(ctx context.Context, steps *steps, refs ...snapshot.Ref) (_ *snapshot.Build, err error) {
	m := s.manager
	quiet := false
	defer func() {
		if err != nil && quiet {
			err = errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error { return s.thaw(ctx, steps) }))
		}
	}()
	host, err := m.cfg.Host(ctx)
	if err != nil {
		return nil, err
	}
	staging, err := m.builds.Begin(ctx, blockmap.NewBuildID(), s.record.Build)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, staging.Abort(ctx)) }()
	quiet = true
	if err := s.still(ctx, steps); err != nil {
		return nil, err
	}
	kind, err := s.snapshotInto(ctx, staging, steps)
	if err != nil {
		return nil, err
	}
	err = steps.time("disk", func() error {
		_, err := m.cfg.Disk.Freeze(ctx, s.ID, staging.Path(manifest.Disk))
		return err
	})
	if err == nil {
		err = failpoint.Here(ctx, pointFrozen)
	}
	if err != nil {
		return nil, err
	}
	return s.commit(ctx, staging, snapshot.Info{Kind: kind, Host: host, Machine: s.record.Parts, New: refSnapshot}, steps, refs)
}

// still makes envd refuse calls and the machine stand still.
func (s *Sandbox) still(ctx context.Context, steps *steps) error {
	err := steps.time("quiesce", func() error {
		ctx, stop := s.whileItRuns(ctx)
		defer stop()
		return cause(ctx, s.manager.cfg.Guest.Quiesce(ctx, s.Dial, s.Token))
	})
	if err != nil {
		return err
	}
	if err := failpoint.Here(ctx, pointQuiesced); err != nil {
		return err
	}
	if err := steps.time("pause", func() error { return s.Machine.Pause(ctx) }); err != nil {
		return err
	}
	return failpoint.Here(ctx, pointStill)
}

// snapshotInto has the VMM write its files. That empties the machine's account of written pages, so that it was done is on record
// before: should the rest of the freeze fail, the next one does not rely on the account.
func (s *Sandbox) snapshotInto(ctx context.Context, staging *snapshot.Staging, steps *steps) (manifest.Kind, error) {
	kind := manifest.Diff
	print, err := s.manager.cfg.VMM.Fingerprint(ctx)
	if err != nil {
		return kind, err
	}
	if s.record.DiffLost || print.DiffMaxMiB > 0 && s.record.Parts.MemoryMiB > print.DiffMaxMiB {
		kind = manifest.Full
	}
	s.record.DiffLost = true
	if err := s.folder.write(s.record); err != nil {
		return kind, err
	}
	err = steps.time("snapshot", func() error {
		return s.Machine.Snapshot(ctx, vmm.Snapshot{State: staging.Path(manifest.VMState), Memory: staging.Path(manifest.Memory),
			Diff: kind == manifest.Diff})
	})
	if err != nil {
		return kind, err
	}
	return kind, failpoint.Here(ctx, pointSnapshot)
}

// commit makes a build of the staged files. From here on the machine's account of written pages is relative to it.
func (s *Sandbox) commit(ctx context.Context, staging *snapshot.Staging, info snapshot.Info, steps *steps, refs []snapshot.Ref) (*snapshot.Build, error) {
	own := snapshot.Ref{Kind: refSandbox, Name: s.ID}
	var b *snapshot.Build
	err := steps.time("digest", func() (err error) {
		b, _, err = staging.Commit(ctx, info, append(refs, own)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.record.Build, s.record.DiffLost = b.ID, false
	s.manager.inheritWorkingSet(s.record.Began, b.ID)
	if err := failpoint.Here(ctx, pointCommitted); err != nil {
		return nil, err
	}
	return b, s.folder.write(s.record)
}

// thaw lets a machine that stands still go on as the sandbox that it was: envd is given the token again.
func (s *Sandbox) thaw(ctx context.Context, steps *steps) error {
	err := steps.time("thaw", func() error {
		if err := s.Machine.Resume(ctx); err != nil {
			return err
		}
		return s.giveToken(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s does not go on: %w", s.ID, err)
	}
	return nil
}

// giveToken hands envd the token by the metadata, for as long as that takes.
func (s *Sandbox) giveToken(ctx context.Context) error {
	if err := s.Machine.PatchMetadata(ctx, map[string]any{metaToken: s.Token, metaStart: s.record.Start}); err != nil {
		return err
	}
	awake, stop := s.whileItRuns(ctx)
	defer stop()
	if _, err := s.manager.cfg.Guest.Awake(awake, s.Dial, s.Token); err != nil {
		return cause(awake, err)
	}
	return s.Machine.PatchMetadata(ctx, map[string]any{metaToken: nil})
}

// whileItRuns is a context that also ends with the machine: a guest that is gone answers nobody.
func (s *Sandbox) whileItRuns(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-s.Machine.Done():
			cancel(s.Died())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// workingSet is the file of the pages that a start of the build needs first.
func (m *Manager) workingSet(build string) string {
	return filepath.Join(m.cfg.StateDir, "working-sets", build)
}

// inheritWorkingSet gives a new build the working set of the one that its machine began from: what a start needs first, the kernel's
// and envd's pages, is mostly the same. Nothing depends on it.
func (m *Manager) inheritWorkingSet(from, to string) {
	if from != "" {
		_ = os.Link(m.workingSet(from), m.workingSet(to))
	}
}

// maxWorkingSet bounds how many pages a working set may have: 64 MiB of memory.
const maxWorkingSet = 16 << 10

// keepWorkingSet ends the pager's record and adds it to the working set of the build that the machine began from. What was prefetched
// was in the set already, and the record has what was missed. Nothing depends on it, so an error only makes a later start slower.
func (s *Sandbox) keepWorkingSet(ctx context.Context) error {
	if s.record.Began == "" || s.pager == nil {
		return nil
	}
	path, err := s.pager.StopRecording(ctx)
	if err != nil {
		return err
	}
	missed, err := readWorkingSet(path)
	if err != nil {
		return err
	}
	dst := s.manager.workingSet(s.record.Began)
	set, err := readWorkingSet(dst)
	if err != nil {
		set = pager.WorkingSet{Memory: missed.Memory} // the first, or one that is damaged
	}
	if !extend(&set, missed.Pages) {
		return nil
	}
	return writeWorkingSet(dst, dst+"."+s.ID, set)
}

// extend adds the pages that a set has not, as far as it may grow, and says whether that is worth writing: a few more are missed
// each time.
func extend(set *pager.WorkingSet, pages []uint32) bool {
	before := len(set.Pages)
	has := make(map[uint32]bool, before)
	for _, p := range set.Pages {
		has[p] = true
	}
	for _, p := range pages {
		if !has[p] && len(set.Pages) < maxWorkingSet {
			set.Pages = append(set.Pages, p)
		}
	}
	return len(set.Pages)-before > before/50
}

func readWorkingSet(path string) (pager.WorkingSet, error) {
	f, err := os.Open(path)
	if err != nil {
		return pager.WorkingSet{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return pager.WorkingSet{}, err
	}
	return pager.DecodeWorkingSet(f, info.Size())
}

// writeWorkingSet puts a set in its place in one step. It need not last: one that is torn is refused by its checksum.
func writeWorkingSet(path, tmp string, set pager.WorkingSet) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(set.Encode(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}
