package modules

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
)

const sample = `# made by depmod
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz:

kernel/drivers/block/virtio_blk.ko:
`

func TestOrder(t *testing.T) {
	d, err := ParseDeps(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Order("virtio_blk", "virtio_net", "net_failover", "virtio_rng", "virtio-rng")
	want := []string{
		"kernel/drivers/block/virtio_blk.ko", "kernel/net/core/failover.ko.xz", "kernel/drivers/net/net_failover.ko.xz",
		"kernel/drivers/net/virtio_net.ko.xz", "kernel/drivers/char/hw_random/virtio-rng.ko.xz",
	}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("Order = %q, %v", got, err)
	}
	if _, err := d.Order("zfs"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Order(zfs) = %v", err)
	}
}

func TestParseDepsRefuses(t *testing.T) {
	for _, text := range []string{
		"no colon", "/abs.ko:", "../up.ko:", "a.ko: /abs.ko", "a.ko: ../../b.ko", ":", "a.ko:" + strings.Repeat(" b.ko", maxLine),
	} {
		if _, err := ParseDeps(strings.NewReader(text)); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("ParseDeps(%.40q) = %v, want ErrCorrupt", text, err)
		}
	}
}

func TestName(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/a/virtio-rng.ko.xz": "virtio_rng", "virtio_net": "virtio_net", "x.ko": "x", "snd-hda.ko.zst": "snd_hda",
	} {
		if got := Name(file); got != want {
			t.Errorf("Name(%q) = %q, want %q", file, got, want)
		}
	}
}

func TestLoadNamesWhatFails(t *testing.T) {
	dir := t.TempDir()
	if err := Load(dir, "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no modules.dep: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte("kernel/x.ko:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(dir, "y"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("unknown module: %v", err)
	}
	if err := Load(dir, "x"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "kernel/x.ko") {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParseDeps(f *testing.F) {
	f.Add(sample)
	f.Add("a.ko: b.ko\nb.ko: a.ko\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDeps(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, errs.ErrCorrupt) {
				t.Errorf("ParseDeps: %v is not ErrCorrupt", err)
			}
			return
		}
		for name := range d.byName {
			order, err := d.Order(name)
			if err != nil || len(slices.Compact(slices.Sorted(slices.Values(order)))) != len(order) {
				t.Errorf("Order(%q) = %q, %v", name, order, err)
			}
			for _, p := range order {
				if !filepath.IsLocal(p) {
					t.Errorf("Order(%q) leaves the folder: %q", name, p)
				}
			}
		}
	})
}
