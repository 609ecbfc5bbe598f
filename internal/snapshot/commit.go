package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/snapshot/scan"
)

// Info is what a commit is told of the frozen machine.
type Info struct {
	// Kind is what Firecracker was asked for. manifest.Full with a parent compares every page with the parent's: what
	// Firecracker before 1.14.2 needs with over 3 GiB of memory, where its diff files are wrong.
	Kind manifest.Kind
	// Created is when the machine was frozen; zero for now.
	Created time.Time
	// Host and Machine are what the build depends on.
	Host    manifest.Host
	Machine manifest.Machine
	// New says that references of this kind must not be there yet; empty for none. Whoever else makes one of the name meanwhile, in whatever
	// process, the first wins.
	New string
}

// Commit makes a build of the staged files and points the references to it, in one step for GC: a build that was committed
// with a reference is not collected. Without one it is, by the next GC. When it fails, the references are as they were and
// the caller still has to Abort.
//
// It fails with errs.ErrAlreadyExists for a reference that is there and must not be, errs.ErrInvalid for an Info that can't be,
// errs.ErrFailedPrecondition for files that are not only the staging's or a file system that can't keep them, and errs.ErrCorrupt for a
// memory file that does not fit the machine.
func (g *Staging) Commit(ctx context.Context, info Info, refs ...Ref) (*Build, scan.Report, error) {
	moves := make([]move, len(refs))
	for i, r := range refs {
		moves[i] = move{ref: r, fresh: r.Kind == info.New}
	}
	return g.commit(ctx, info, g.parent, moves)
}

// move is a reference that is pointed to the new build; with from, only if it points there; with fresh, only if it is not there.
type move struct {
	ref   Ref
	from  string
	fresh bool
}

func (g *Staging) commit(ctx context.Context, info Info, parent string, moves []move) (*Build, scan.Report, error) {
	b, report, err := g.prepare(ctx, info, parent)
	if err == nil {
		err = g.publish(ctx, b, moves)
	}
	if err != nil {
		return nil, scan.Report{}, fmt.Errorf("commit build %s: %w", g.id, err)
	}
	_ = g.end(nil)
	if now, err := quietStamps(ctx, b.Path("")); err == nil {
		seal(b.Path(""), now)
	}
	return b, report, nil
}

// prepare does all that needs no lock: after it the folder is a whole build, on disk, under its staging name.
func (g *Staging) prepare(ctx context.Context, info Info, parent string) (*Build, scan.Report, error) {
	if g.held == nil {
		return nil, scan.Report{}, fmt.Errorf("the staging has ended: %w", errs.ErrFailedPrecondition)
	}
	if err := g.checkStaged(); err != nil {
		return nil, scan.Report{}, err
	}
	b := &Build{ID: g.id, root: g.s.root, Manifest: g.document(info, parent)}
	report, err := g.scan(ctx, b, info)
	if err != nil {
		return nil, scan.Report{}, err
	}
	if err := failpoint.Here(ctx, pointScanned); err != nil {
		return nil, scan.Report{}, err
	}
	if err := os.WriteFile(g.Path(manifest.MemoryMap), b.Map.Encode(), 0o600); err != nil {
		return nil, scan.Report{}, err
	}
	if err := failpoint.Here(ctx, pointMap); err != nil {
		return nil, scan.Report{}, err
	}
	if err := g.digest(ctx, b.Manifest, report.Chunks); err != nil {
		return nil, scan.Report{}, err
	}
	return b, report, g.writeManifest(ctx, b)
}

// checkStaged tells whether the staged files are there, and nobody else's.
func (g *Staging) checkStaged() error {
	entries, err := os.ReadDir(g.dir())
	if err != nil {
		return err
	}
	want := []string{manifest.Disk, manifest.Memory, manifest.VMState}
	for _, e := range entries {
		if name := e.Name(); name != pinName && !slices.Contains(want, name) {
			return fmt.Errorf("%.80q is no file of a build: %w", name, errs.ErrFailedPrecondition)
		}
	}
	for _, name := range want {
		var st unix.Stat_t
		if err := unix.Lstat(g.Path(name), &st); err != nil {
			return fmt.Errorf("%s: %w: %w", name, err, errs.ErrFailedPrecondition)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
			return fmt.Errorf("%s has mode %o and %d names; want a regular file with one: %w", name, st.Mode, st.Nlink, errs.ErrFailedPrecondition)
		}
	}
	return nil
}

// document is the manifest as far as the caller's words go.
func (g *Staging) document(info Info, parent string) *manifest.Manifest {
	created := info.Created
	if created.IsZero() {
		created = time.Now()
	}
	return &manifest.Manifest{
		Version: manifest.Version, Build: g.id, Created: created.UTC().Round(0), Parent: parent, Kind: info.Kind,
		Host: info.Host, Machine: info.Machine, Files: map[string]manifest.File{},
	}
}

// scan reads the memory file and gives the build its map and its needs.
func (g *Staging) scan(ctx context.Context, b *Build, info Info) (scan.Report, error) {
	before, err := blockmap.Zero(info.Machine.Pages())
	if err != nil {
		return scan.Report{}, err
	}
	var parent *Build
	digests := map[string]string{}
	if g.parent != "" {
		if parent, err = g.s.Open(ctx, g.parent); err != nil {
			return scan.Report{}, err
		}
		if n := parent.Map.Pages(); n != before.Pages() {
			return scan.Report{}, fmt.Errorf("the machine has %d pages, the build that it was started from %d: %w", before.Pages(), n, errs.ErrInvalid)
		}
		before = parent.Map
		digests[parent.ID] = parent.Digest
		for _, n := range parent.Manifest.Needs {
			digests[n.Build] = n.Manifest
		}
	}
	report, err := g.scanMemory(ctx, before.Pages(), info.Kind, parent)
	if err != nil {
		return scan.Report{}, err
	}
	if b.Map, err = blockmap.Merge(before, g.id, slices.Values(report.Changes)); err != nil {
		return scan.Report{}, err
	}
	for _, id := range b.Map.Builds() {
		if id != g.id {
			b.Manifest.Needs = append(b.Manifest.Needs, manifest.Need{Build: id, Manifest: digests[id]})
		}
	}
	return report, nil
}

func (g *Staging) scanMemory(ctx context.Context, pages int64, kind manifest.Kind, parent *Build) (scan.Report, error) {
	f, err := os.OpenFile(g.Path(manifest.Memory), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return scan.Report{}, err
	}
	defer f.Close()
	if kind != manifest.Full || parent == nil {
		return scan.Diff(ctx, f, pages)
	}
	reader := parent.Pages()
	defer reader.Close()
	return scan.Full(ctx, f, pages, reader)
}

// digest enters the files into the manifest. From here on they are read-only, on disk, and not the VMM's user's any more.
func (g *Staging) digest(ctx context.Context, m *manifest.Manifest, memory []manifest.Chunk) error {
	for _, name := range manifest.Names() {
		file, err := g.digestFile(ctx, name, memory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		m.Files[name] = file
	}
	return failpoint.Here(ctx, pointSynced)
}

func (g *Staging) digestFile(ctx context.Context, name string, memory []manifest.Chunk) (file manifest.File, err error) {
	f, err := openFile(g.dir(), name)
	if err != nil {
		return file, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return file, err
	}
	if err := errors.Join(f.Chown(os.Getuid(), os.Getgid()), f.Chmod(0o400), f.Sync()); err != nil {
		return file, err
	}
	switch name {
	case manifest.Memory:
		file.Chunks = memory
	case manifest.Disk:
		file.Chunks, err = sumChunks(ctx, f, plainChunk)
	default:
		file, err = sumWhole(f)
	}
	file.Size = info.Size()
	return file, err
}

// writeManifest completes the folder.
func (g *Staging) writeManifest(ctx context.Context, b *Build) error {
	data, err := b.Manifest.Encode()
	if err != nil {
		return err
	}
	b.Digest = manifest.Digest(data)
	beside := g.Path(newPrefix + manifest.Name)
	if err := writeSynced(beside, data, 0o400); err != nil {
		return err
	}
	if err := failpoint.Here(ctx, pointManifest); err != nil {
		return err
	}
	if err := os.Rename(beside, g.Path(manifest.Name)); err != nil {
		return err
	}
	return syncPath(g.dir())
}

// publish gives the folder its name and points the references to it, with the store locked.
func (g *Staging) publish(ctx context.Context, b *Build, moves []move) error {
	release, err := g.s.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	refs, err := g.s.current(moves)
	if err != nil {
		return err
	}
	for _, n := range b.Manifest.Needs { // the pin keeps them, but what is gone all the same must not be referred to
		if there, err := g.s.exists(n.Build); err != nil || !there {
			return errors.Join(err, fmt.Errorf("it needs %s, which is gone: %w", n.Build, errs.ErrFailedPrecondition))
		}
	}
	if err := removeIfThere(filepath.Join(g.dir(), pinName)); err != nil {
		return err
	}
	if err := failpoint.Here(ctx, pointPlace); err != nil {
		return err
	}
	if err := os.Rename(g.dir(), g.s.dir(g.id)); err != nil {
		return err
	}
	if err := g.s.settle(ctx, g.id, refs); err != nil {
		return errors.Join(err, g.takeBack())
	}
	return nil
}

// settle makes a placed build durable and points the references to it.
func (s *Store) settle(ctx context.Context, build string, refs []Ref) error {
	if err := syncPath(s.root); err != nil {
		return err
	}
	if err := failpoint.Here(ctx, pointPlaced); err != nil {
		return err
	}
	return s.writeRefs(ctx, refs, build)
}

// takeBack makes a placed build a staging again, for Abort to remove, unless a reference points to it already, as after a
// failure to make the last one durable. Preconditions: the store's lock is held.
func (g *Staging) takeBack() error {
	refs, err := g.s.ListRefs()
	if err != nil {
		return err
	}
	for _, build := range refs {
		if build == g.id {
			return nil
		}
	}
	return os.Rename(g.s.dir(g.id), g.dir())
}

// current checks moves and leaves out those whose reference points elsewhere by now. It fails with
// errs.ErrFailedPrecondition when none is left of some. Preconditions: the store's lock is held.
func (s *Store) current(moves []move) ([]Ref, error) {
	var left []Ref
	for _, m := range moves {
		if err := m.ref.check(); err != nil {
			return nil, err
		}
		if m.fresh {
			if _, err := s.GetRef(m.ref); !errors.Is(err, errs.ErrNotFound) {
				return nil, errors.Join(err, fmt.Errorf("reference %s: %w", m.ref, errs.ErrAlreadyExists))
			}
		}
		if m.from != "" {
			got, err := s.GetRef(m.ref)
			if errors.Is(err, errs.ErrNotFound) || (err == nil && got != m.from) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		left = append(left, m.ref)
	}
	if len(left) == 0 && len(moves) > 0 {
		return nil, fmt.Errorf("no reference points to %s any more: %w", moves[0].from, errs.ErrFailedPrecondition)
	}
	return left, nil
}
