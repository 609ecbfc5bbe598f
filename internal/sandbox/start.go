package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/vmm"
)

// What the guest reads from its metadata service.
const (
	metaSandboxID  = "WRENN_SANDBOX_ID"
	metaTemplateID = "WRENN_TEMPLATE_ID"
	metaHostname   = "WRENN_HOSTNAME"
	metaStart      = "WRENN_START"
	metaToken      = "WRENN_ENVD_TOKEN"
)

// stateName is the copy of a build's VMM state in the sandbox's folder: what goes into a jail is linked, and a build's own files
// have one name only.
const stateName = "vmstate"

// start is one start under way: of a new sandbox, or of one that was paused.
type start struct {
	m       *Manager
	folder  *folder
	record  *Record
	build   *snapshot.Build // what it begins from; nil: it boots
	console bool
	token   string
	steps   *steps

	slot  network.Slot
	disk  disk.Disk
	pager Pager
}

// run makes the parts and returns when envd answers. What it made is undone by whoever called it.
func (s *start) run(ctx context.Context) (*Sandbox, error) {
	s.token = newToken()
	boot, err := s.m.boot()
	if err != nil {
		return nil, err
	}
	s.record.Start, s.record.Boot, s.record.Began = newToken()[:16], boot, ""
	if s.build != nil {
		s.record.Began = s.build.ID
	}
	if err := s.groundwork(ctx); err != nil {
		return nil, cause(ctx, err)
	}
	machine, err := s.boot(ctx)
	if err != nil {
		return nil, cause(ctx, errors.Join(err, s.closePager()))
	}
	if err := s.awake(ctx, machine); err != nil {
		return nil, cause(ctx, errors.Join(err, machine.Close(), s.closePager()))
	}
	sb := s.m.newSandbox(s.folder, s.record, s.token)
	sb.Machine, sb.pager, sb.Steps = machine, s.pager, s.steps.all()
	sb.watch()
	return sb, nil
}

func (s *start) closePager() error {
	if s.pager == nil {
		return nil
	}
	return s.pager.Close()
}

// groundwork makes network and disk side by side: neither needs the other. The pager needs the slot, which says whose it is.
func (s *start) groundwork(ctx context.Context) error {
	if err := failpoint.Here(ctx, pointGroundwork); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.steps.time("network", func() (err error) {
			s.slot, err = s.m.cfg.Network.Acquire(gctx, s.record.ID, s.record.Policy, s.m.uid)
			return err
		})
		if err != nil || s.build == nil {
			return err
		}
		return s.steps.time("pager", func() error { return s.startPager(gctx) })
	})
	g.Go(func() error { return s.steps.time("disk", func() error { return s.makeDisk(gctx) }) })
	return g.Wait()
}

// makeDisk makes the disk over the image, with what the build had written on it.
func (s *start) makeDisk(ctx context.Context) (err error) {
	digest := s.record.Parts.RootFS
	spec := disk.Spec{ID: s.record.ID, Base: disk.Base{Digest: digest, Path: s.m.cfg.Templates.Path(digest)}, SizeBytes: s.record.Parts.DiskBytes}
	if s.build != nil {
		spec.Store = s.build.Path(manifest.Disk)
		if err := copyFile(filepath.Join(s.folder.path, stateName), s.build.Path(manifest.VMState)); err != nil {
			return err
		}
	}
	s.disk, err = s.m.cfg.Disk.Create(ctx, spec)
	return err
}

// copyFile makes a read-only copy of a small file.
func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// startPager starts the page-fault server of the build's memory.
func (s *start) startPager(ctx context.Context) (err error) {
	spec := process.Spec{ID: s.record.ID, Builds: s.m.buildsDir(), Build: s.build.ID, Machine: s.m.uid(s.slot.Index),
		Become: s.m.pagerUID(s.slot.Index), Stream: s.record.Stream}
	if path := s.m.workingSet(s.build.ID); exists(path) {
		spec.Prefetch = path
	}
	s.pager, err = s.m.cfg.Pagers.Start(ctx, spec)
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// boot starts the machine on the groundwork.
func (s *start) boot(ctx context.Context) (vmm.Machine, error) {
	s.record.Slot = &s.slot.Index
	if s.pager != nil {
		h := s.pager.Handle()
		s.record.Pager = &h
	}
	if err := s.folder.write(s.record); err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, pointBoot); err != nil {
		return nil, err
	}
	began := time.Now()
	machine, err := s.m.cfg.VMM.Start(ctx, s.config())
	if err != nil {
		return nil, s.blamePager(err)
	}
	s.steps.add(machine.Timings()...)
	s.steps.add(vmm.Step{Name: "vmm", Took: time.Since(began)})
	h := machine.Handle()
	s.record.Machine = &h
	if err := s.folder.write(s.record); err != nil {
		return nil, errors.Join(err, machine.Close())
	}
	return machine, nil
}

// blamePager adds to the error of a machine that did not come up what its pager said before it ended.
func (s *start) blamePager(err error) error {
	if s.pager == nil {
		return err
	}
	select {
	case <-s.pager.Done():
		if s.pager.Left() {
			return err
		}
		return fmt.Errorf("%w; its pager ended: %s", err, s.pager.LastWords())
	default:
		return err
	}
}

// config is the machine that the start asks for.
func (s *start) config() vmm.Config {
	uid, parts := s.m.uid(s.slot.Index), s.record.Parts
	cfg := vmm.Config{
		ID: s.record.ID, VCPUs: parts.VCPUs, MemoryMiB: parts.MemoryMiB, TrackDirty: true,
		NIC: &vmm.NIC{TAP: s.slot.TAP, MAC: network.GuestMAC},
		Metadata: map[string]any{
			metaSandboxID: s.record.ID, metaTemplateID: s.record.TemplateID, metaHostname: s.record.ID, metaStart: s.record.Start,
			metaToken: s.token,
		},
		Jail: vmm.Jail{UID: uid, GID: uid, NetNS: s.slot.NetNS, Limits: vmm.Limits{
			// Once for the memory itself, and once for the page cache of the file that a freeze writes it to: that is the VMM's, and the kernel
			// kills it when it can't write it out as fast as it comes.
			MemoryMaxBytes: 2*int64(parts.MemoryMiB)<<20 + vmmOverheadBytes,
			CPUQuota:       float64(parts.VCPUs) + 0.5,
			PIDsMax:        pidsMax + parts.VCPUs,
		}},
		Console: s.console,
	}
	path := s.m.cfg.Templates.Path
	for _, d := range parts.Devices.Drives {
		file := s.disk.Device
		if d.ID == modulesDrive {
			file = path(parts.Modules)
		}
		cfg.Drives = append(cfg.Drives, vmm.Drive{ID: d.ID, Path: file, ReadOnly: d.ReadOnly})
	}
	if s.build != nil {
		cfg.From = &vmm.Frozen{State: filepath.Join(s.folder.path, stateName), Pager: s.pager.Socket()}
		return cfg
	}
	cfg.Kernel, cfg.Initramfs, cfg.BootArgs = path(parts.Kernel), path(parts.Initramfs), bootArgs(s.console)
	return cfg
}

// awake waits until envd answers, then takes its token out of the metadata, where a process in the guest could read it.
func (s *start) awake(ctx context.Context, machine vmm.Machine) error {
	if err := failpoint.Here(ctx, pointAwake); err != nil {
		return err
	}
	ready, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.whileBothLive(ready, machine, cancel)
	if err := s.answer(ready); err != nil {
		return withConsole(cause(ready, err), machine)
	}
	if err := machine.PatchMetadata(ctx, map[string]any{metaToken: nil}); err != nil {
		return fmt.Errorf("take the token out of the metadata: %w", err)
	}
	s.record.change(Running, "envd answers")
	return s.folder.write(s.record)
}

// answer waits until envd answers with the token.
func (s *start) answer(ctx context.Context) error {
	if s.build == nil {
		return s.steps.time("guest", func() error { return s.m.cfg.Guest.Ready(ctx, s.dial, s.token) })
	}
	return s.steps.time("wake", func() error {
		did, err := s.m.cfg.Guest.Awake(ctx, s.dial, s.token)
		for _, step := range did {
			s.steps.add(vmm.Step{Name: "wake." + step.Name, Took: step.Took})
		}
		return err
	})
}

// whileBothLive ends a wait for the guest with the machine's end or its pager's.
func (s *start) whileBothLive(ctx context.Context, machine vmm.Machine, cancel context.CancelCauseFunc) {
	select {
	case <-machine.Done():
		cancel(s.blamePager(died(machine)))
	case <-diedWithout(ctx.Done(), s.pager):
		cancel(pagerDied(s.pager.LastWords()))
	case <-ctx.Done():
	}
}

// pagerDied says why a machine without its pager is lost.
func pagerDied(words string) error {
	if words == "" {
		words = "it was killed, or said nothing"
	}
	return fmt.Errorf("its page-fault server ended: %s: %w", words, errs.ErrUnavailable)
}

// bootArgs is the kernel command line. The guest is silent unless a console is asked for: every byte is an exit to the host.
func bootArgs(console bool) string {
	const common = "reboot=k panic=1 i8042.noaux i8042.nomux i8042.dumbkbd rdinit=/init"
	if console {
		return "console=ttyS0 8250.nr_uarts=1 " + common
	}
	return "quiet loglevel=1 8250.nr_uarts=0 " + common
}

// newToken is 32 bytes of randomness in hex.
func newToken() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: the runtime ends the process instead
	return hex.EncodeToString(b)
}

func (s *start) dial(ctx context.Context, port int) (conn net.Conn, err error) {
	return s.m.cfg.Network.Dial(ctx, s.record.ID, port)
}
