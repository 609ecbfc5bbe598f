package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
)

// What the guest reads from its metadata service.
const (
	metaSandboxID  = "WRENN_SANDBOX_ID"
	metaTemplateID = "WRENN_TEMPLATE_ID"
	metaHostname   = "WRENN_HOSTNAME"
	metaToken      = "WRENN_ENVD_TOKEN"
)

// start is one start under way.
type start struct {
	m      *Manager
	spec   Spec
	tmpl   template.Template
	folder *folder
	record *Record
	token  string
	slot   network.Slot
	disk   disk.Disk
	steps  steps
}

// Create starts a sandbox: when it returns, envd answers. When it fails, nothing of the sandbox is left. The step function,
// if there is one, is told of each step as it ends.
//
// Errors: ErrInvalid with the field for a Spec that can't be, before anything is made; ErrNotFound for the template;
// ErrResourceExhausted when the host has no room; ErrUnavailable when the machine died or did not answer in time.
func (m *Manager) Create(ctx context.Context, spec Spec, step func(vmm.Step)) (_ *Sandbox, err error) {
	tmpl, err := m.Check(&spec)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.StartTimeout,
		fmt.Errorf("the sandbox did not start within %v: %w", m.cfg.StartTimeout, errs.ErrUnavailable))
	defer cancel()
	s := &start{m: m, spec: spec, tmpl: tmpl, token: newToken(), steps: steps{tell: step}}
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)

	if err := s.steps.time("record", func() error { return s.open(cu) }); err != nil {
		return nil, err
	}
	if err := s.groundwork(ctx); err != nil {
		return nil, cause(ctx, err)
	}
	machine, err := s.boot(ctx)
	if err != nil {
		return nil, cause(ctx, err)
	}
	cu.Add("stop watching", func(context.Context) error { return machine.Close() })
	if err := s.awake(ctx, machine); err != nil {
		return nil, cause(ctx, err)
	}
	cu.Release()
	return &Sandbox{ID: s.record.ID, Token: s.token, Machine: machine, Steps: s.steps.list,
		manager: m, folder: s.folder, record: s.record}, nil
}

// open makes the sandbox's folder and record, and pushes what undoes the whole start.
func (s *start) open(cu *cleanup.Stack) error {
	s.record = &Record{Version: RecordVersion, ID: id.New(), Template: s.spec.Template, VCPUs: s.spec.VCPUs,
		MemoryMiB: s.spec.MemoryMiB, DiskBytes: s.spec.DiskBytes, Kept: s.spec.Keep}
	s.record.change(Starting, "asked for")
	f, err := s.m.newFolder(s.record)
	if err != nil {
		return err
	}
	s.folder = f
	cu.Add("take apart "+s.record.ID, func(ctx context.Context) error {
		return s.m.takeApart(ctx, s.record.ID, f, s.record, "the start failed")
	})
	return nil
}

// groundwork makes network and disk side by side: neither needs the other.
func (s *start) groundwork(ctx context.Context) error {
	if err := failpoint.Here(ctx, "sandbox.groundwork"); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.steps.time("network", func() (err error) {
			s.slot, err = s.m.cfg.Network.Acquire(gctx, s.record.ID, s.spec.Policy, s.m.uid)
			return err
		})
	})
	g.Go(func() error {
		return s.steps.time("disk", func() (err error) {
			base := disk.Base{Digest: s.tmpl.Rootfs.Digest, Path: s.m.cfg.Templates.Path(s.tmpl.Rootfs.Digest)}
			s.disk, err = s.m.cfg.Disk.Create(gctx, disk.Spec{ID: s.record.ID, Base: base, SizeBytes: s.spec.DiskBytes})
			return err
		})
	})
	return g.Wait()
}

// boot starts the machine on the groundwork.
func (s *start) boot(ctx context.Context) (vmm.Machine, error) {
	s.record.Slot = &s.slot.Index
	if err := s.folder.write(s.record); err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, "sandbox.boot"); err != nil {
		return nil, err
	}
	began := time.Now()
	machine, err := s.m.cfg.VMM.Start(ctx, s.config())
	if err != nil {
		return nil, err
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

// config is the machine that the start asks for.
func (s *start) config() vmm.Config {
	uid := s.m.uid(s.slot.Index)
	path := s.m.cfg.Templates.Path
	return vmm.Config{
		ID: s.record.ID, VCPUs: s.spec.VCPUs, MemoryMiB: s.spec.MemoryMiB,
		Kernel: path(s.tmpl.Kernel.Digest), Initramfs: path(s.tmpl.Initramfs.Digest), BootArgs: bootArgs(s.spec.Console),
		Drives: []vmm.Drive{
			{ID: "rootfs", Path: s.disk.Device},
			{ID: "modules", Path: path(s.tmpl.Modules.Digest), ReadOnly: true},
		},
		NIC: &vmm.NIC{TAP: s.slot.TAP, MAC: network.GuestMAC},
		Metadata: map[string]any{
			metaSandboxID: s.record.ID, metaTemplateID: s.tmpl.ID, metaHostname: s.record.ID, metaToken: s.token,
		},
		Jail: vmm.Jail{UID: uid, GID: uid, NetNS: s.slot.NetNS, Limits: vmm.Limits{
			MemoryMaxBytes: int64(s.spec.MemoryMiB)<<20 + vmmOverheadBytes,
			CPUQuota:       float64(s.spec.VCPUs) + 0.5,
			PIDsMax:        pidsMax + s.spec.VCPUs,
		}},
		Console: s.spec.Console,
	}
}

// awake waits until envd answers, then takes its token out of the metadata, where a process in the guest could read it.
func (s *start) awake(ctx context.Context, machine vmm.Machine) error {
	if err := failpoint.Here(ctx, "sandbox.awake"); err != nil {
		return err
	}
	ready, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-machine.Done():
			cancel(died(machine))
		case <-ready.Done():
		}
	}()
	err := s.steps.time("guest", func() error { return s.m.cfg.WaitReady(ready, s.dial, s.token) })
	if err != nil {
		return withConsole(cause(ready, err), machine)
	}
	if err := machine.PatchMetadata(ctx, map[string]any{metaToken: nil}); err != nil {
		return fmt.Errorf("take the token out of the metadata: %w", err)
	}
	s.record.change(Running, "envd answers")
	return s.folder.write(s.record)
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
