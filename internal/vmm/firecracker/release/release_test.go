package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{"1.12.1": {1, 12, 1}, "v1.16.0": {1, 16, 0}, "0.0.65535": {0, 0, 65535}} {
		got, err := ParseVersion(text)
		if err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1.12", "1.12.1-dev", "1.12.1.1", "1.-1.0", "1.x.0", "1.12.65536", strings.Repeat("1", 1<<16)} {
		if _, err := ParseVersion(text); !errors.Is(err, errs.ErrInvalid) || len(err.Error()) > 200 {
			t.Errorf("ParseVersion(%.20q) = %v, want a short ErrInvalid", text, err)
		}
	}
}

func TestSupported(t *testing.T) {
	for text, want := range map[string]bool{
		"1.11.9": false, "1.12.0": true, "1.12.1": true, "1.14.4": true, "1.16.0": true, "1.16.9": true, "1.17.0": false,
		"2.13.0": false, "0.16.0": false,
	} {
		v, err := ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Supported(); (err == nil) != want || err != nil && !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("%v.Supported() = %v, want supported %v", v, err, want)
		}
	}
}

func TestFeatures(t *testing.T) {
	for text, want := range map[string]Features{
		"1.12.1": {}, "1.13.0": {TrackDirtyPages: true}, "1.14.1": {TrackDirtyPages: true},
		"1.14.2": {TrackDirtyPages: true, DiffOfSlots: true}, "1.15.0": {TrackDirtyPages: true},
		"1.15.9": {TrackDirtyPages: true, DiffOfSlots: true}, "1.16.0": {SerialRateLimit: true, TrackDirtyPages: true, DiffOfSlots: true},
	} {
		v, err := ParseVersion(text)
		if err != nil || v.Features() != want {
			t.Errorf("%v: %+v, want %+v", v, v.Features(), want)
		}
	}
}

func TestEverySupportedVersionHasASnapshotFormat(t *testing.T) {
	for minor := Oldest.Minor; minor <= NewestMinor.Minor; minor++ {
		if v := (Version{1, minor, 0}); v.Supported() != nil || v.SnapshotFormat() == "" {
			t.Errorf("%v: %v, format %q", v, v.Supported(), v.SnapshotFormat())
		}
	}
}

func TestAdvisories(t *testing.T) {
	const jailer, pci = "CVE-2026-1386", "CVE-2026-5747"
	for text, want := range map[string]string{
		"1.12.1": jailer, "1.13.0": jailer + " " + pci, "1.13.1": jailer + " " + pci, "1.13.2": pci,
		"1.14.0": jailer + " " + pci, "1.14.1": pci, "1.14.3": pci, "1.14.4": "", "1.15.0": pci, "1.15.1": "", "1.16.1": "",
	} {
		v, _ := ParseVersion(text)
		var ids []string
		for _, a := range Advisories(v) {
			ids = append(ids, a.ID)
			if a.Summary == "" || a.Defence == "" {
				t.Errorf("%s says too little", a.ID)
			}
			for _, fixed := range a.Fixed {
				for _, b := range Advisories(fixed) {
					if a.ID == b.ID {
						t.Errorf("%s: %v is said to fix it and to have it", a.ID, fixed)
					}
				}
			}
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("Advisories(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestPinsAndSources(t *testing.T) {
	hex := regexp.MustCompile(`^[0-9a-f]{64}$`)
	seen := map[string]bool{}
	for _, p := range pins {
		if !hex.MatchString(p.SHA256) || seen[p.SHA256] || p.Version.Supported() != nil {
			t.Errorf("pin %+v is malformed, doubled or not supported", p)
		}
		seen[p.SHA256] = true
		if got, ok := Lookup(p.SHA256); !ok || got != p {
			t.Errorf("Lookup(%s) = %+v", p.SHA256, got)
		}
	}
	for _, s := range []Source{Recommended, Wheel} {
		for _, kind := range []Kind{Firecracker, Jailer} {
			if _, ok := Find(kind, s.Version, s.Origin); !ok || s.Members[kind] == "" {
				t.Errorf("%s %v of the %s has no pin or no member", kind, s.Version, s.Origin)
			}
		}
	}
	if len(Advisories(Recommended.Version)) != 0 {
		t.Errorf("the recommended version has known holes")
	}
	if _, ok := Lookup("00"); ok {
		t.Error("an unknown checksum was found")
	}
}

// script writes an executable shell script.
func script(t *testing.T, name, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDetect(t *testing.T) {
	ctx := t.Context()
	fc := script(t, "firecracker", `[ "$1" = --version ] && echo "Firecracker v1.14.4" && echo && yes | head -c 100000`)
	f, err := Detect(ctx, Firecracker, fc)
	if err != nil || f.Version != (Version{1, 14, 4}) || f.Origin != "" || len(f.SHA256) != 64 {
		t.Fatalf("Detect = %+v, %v", f, err)
	}
	for name, path := range map[string]string{
		"other binary": script(t, "a", "echo QEMU 10"), "fails": script(t, "b", "exit 3"), "silent": script(t, "c", ":"),
		"development build": script(t, "d", "echo Firecracker v1.17.0-dev"), "folder": t.TempDir(),
	} {
		if _, err := Detect(ctx, Firecracker, path); !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("%s: %v, want ErrFailedPrecondition", name, err)
		}
	}
	if _, err := Detect(ctx, Firecracker, "/nonexistent/firecracker"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("missing: %v, want ErrNotFound", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Detect(ended, Firecracker, script(t, "e", "sleep 1000")); err == nil {
		t.Error("an ended context did not end the wait")
	}
}

func TestDetectPair(t *testing.T) {
	pair := func(fv, jv string) error {
		fc := script(t, "firecracker", "echo Firecracker v"+fv)
		_, _, err := DetectPair(t.Context(), fc, script(t, "jailer", "echo Jailer v"+jv))
		return err
	}
	if err := pair("1.13.2", "1.13.2"); err != nil {
		t.Error(err)
	}
	for _, versions := range [][2]string{{"1.13.2", "1.13.1"}, {"1.11.0", "1.11.0"}, {"1.17.0", "1.17.0"}} {
		if err := pair(versions[0], versions[1]); !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("%v: %v, want ErrFailedPrecondition", versions, err)
		}
	}
}

func TestVerify(t *testing.T) {
	path := script(t, "x", "true")
	sum, err := hash(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(path, Pin{SHA256: sum}); err != nil {
		t.Error(err)
	}
	if err := Verify(path, pins[0]); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("Verify = %v, want ErrCorrupt", err)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add("Firecracker v1.12.1\n\nexiting")
	f.Add("Firecracker v1.99999999999999999999.1")
	f.Fuzz(func(t *testing.T, answer string) {
		v, err := parseAnswer(Firecracker, "x", answer)
		if err == nil && !strings.Contains(answer, fmt.Sprint(v.Patch)) {
			t.Fatalf("%q became %v", answer, v)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Fatalf("a long answer became a long error: %d bytes", len(err.Error()))
		}
	})
}
