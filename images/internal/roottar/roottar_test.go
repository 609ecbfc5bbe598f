package roottar

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	packaged = time.Unix(1_700_000_000, 0) // when the newest package was built
	older    = packaged.Add(-time.Hour)
)

const status = "Package: b\nStatus: install ok installed\nVersion: 2:1.0-1\n\nPackage: a\nVersion: 3\n"

// tree is an archive as mmdebstrap writes it on a day.
func tree(t *testing.T, today time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, body string) {
		h.Size, h.Uname, h.AccessTime, h.Format = int64(len(body)), "root", today, tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	dir := func(name string) { add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: today}, "") }
	file := func(name, body string, at time.Time) {
		add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: at}, body)
	}
	dir("./")
	dir("./dev/")
	add(tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null", Devmajor: 1, Devminor: 3, ModTime: today}, "")
	dir("./etc/")
	file("./etc/hostname", fmt.Sprint(today), today)
	file("./etc/machine-id", fmt.Sprint(today), today)
	file("./etc/shadow", fmt.Sprintf("root:*:%d:0:::::\nx:!::0:::::\nbroken\n", today.Unix()/86400), today)
	file("./etc/made", "by a script", today)
	file("./etc/ssh/ssh_host_rsa_key", fmt.Sprint(today), today)
	dir("./usr/")
	file("./usr/new", "of the newest package", packaged)
	file("./usr/old", strings.Repeat("x", Block+1), older)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./usr/ping", Mode: 0o755, ModTime: older,
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "cap"}}, "")
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "./usr/link", Linkname: "new", ModTime: older}, "")
	dir("./var/log/apt/")
	file("./var/log/apt/history.log", fmt.Sprint(today), today)
	file("./var/lib/dpkg/status", status, today)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var injected = []File{{Path: "usr/lib/wrenn/envd", Mode: 0o755, Data: []byte("envd")}, {Path: "usr/old", Mode: 0o600, Data: []byte("ours")},
	{Path: "usr/lib/modules/"}}

// made is the root file system of a tree that was begun at the time today.
func made(t *testing.T, today time.Time) ([]byte, Summary) {
	t.Helper()
	in := tree(t, today)
	s, err := Scan(bytes.NewReader(in), today, "usr/new")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(&out, bytes.NewReader(in), s, injected); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), s
}

func TestScan(t *testing.T) {
	_, s := made(t, packaged.Add(48*time.Hour))
	if !s.Epoch.Equal(packaged) {
		t.Errorf("Epoch = %v, want %v", s.Epoch, packaged)
	}
	if want := []string{"a=3", "b=2:1.0-1"}; !cmp.Equal(s.Packages, want) {
		t.Errorf("Packages = %q", s.Packages)
	}
	if string(s.Picked["usr/new"]) != "of the newest package" || len(s.Picked) != 1 {
		t.Errorf("Picked = %q", s.Picked)
	}
	if want := int64(10 * Block); s.Bytes != want || s.Files != 17 {
		t.Errorf("%d bytes, %d files; want %d, 17", s.Bytes, s.Files, want)
	}
}

func TestScanMissesAPick(t *testing.T) {
	if _, err := Scan(bytes.NewReader(tree(t, packaged)), packaged, "usr/bin/tini-static"); err == nil ||
		!strings.Contains(err.Error(), "tini-static") {
		t.Errorf("Scan = %v", err)
	}
}

func TestCutArchive(t *testing.T) {
	in := tree(t, packaged)
	if _, err := Scan(bytes.NewReader(in[:len(in)/2+100]), packaged); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Scan = %v", err)
	}
	if err := Write(io.Discard, bytes.NewReader(in[:len(in)/2+100]), Summary{}, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Write = %v", err)
	}
}

func TestWrite(t *testing.T) {
	out, _ := made(t, packaged.Add(48*time.Hour))
	var got []string
	for r := tar.NewReader(bytes.NewReader(out)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.After(packaged) || h.Uname != "" || !h.AccessTime.IsZero() {
			t.Errorf("%s tells of its making: %v %q %v", h.Name, h.ModTime, h.Uname, h.AccessTime)
		}
		line := h.Name
		if h.Typeflag == tar.TypeReg {
			line = fmt.Sprintf("%s %o %q", h.Name, h.Mode, body)
		}
		got = append(got, line+h.PAXRecords["SCHILY.xattr.security.capability"])
	}
	want := []string{
		"./", "./dev/", "./etc/", `./etc/shadow 644 "root:*:1:0:::::\nx:!::0:::::\nbroken\n"`, `./etc/made 644 "by a script"`, "./usr/",
		`./usr/new 644 "of the newest package"`, `./usr/ping 755 ""cap`, "./usr/link", "./var/log/apt/",
		fmt.Sprintf("./var/lib/dpkg/status 644 %q", status), "./usr/lib/", "./usr/lib/wrenn/", `./usr/lib/wrenn/envd 755 "envd"`,
		`./usr/old 600 "ours"`, "./usr/lib/modules/",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestSameOnAnotherDay(t *testing.T) {
	one, s1 := made(t, packaged.Add(48*time.Hour))
	two, s2 := made(t, packaged.Add(480*time.Hour+time.Second/3))
	if !bytes.Equal(one, two) || s1.PackagesDigest() != s2.PackagesDigest() {
		t.Error("the day of making shows")
	}
}

func TestLeftOut(t *testing.T) {
	for name, want := range map[string]bool{
		"dev": false, "dev/null": true, "device": false, "run/x/y": true, "etc/hosts": true, "etc/hosts.allow": false,
		"etc/ssh/ssh_host_ed25519_key": true, "etc/ssh/ssh_config": false, "var/log/apt/term.log": true, "var/cache/apt/pkgcache.bin": true,
		"var/lib/apt/extended_states": false, "var/cache/debconf/config.dat-old": true, "var/cache/debconf/config.dat": false,
	} {
		if got := leftOut(name, tar.TypeReg); got != want {
			t.Errorf("leftOut(%q) = %v", name, got)
		}
	}
	if leftOut("var/log/chrony", tar.TypeDir) {
		t.Error("a folder of logs is left out")
	}
}
