// Package arch tests the shape of the code base: which package may import which, and how large a piece may grow.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "wrenn.dev/wrenn/"

// layers from the bottom up. A package may import packages of its own row's folder and of the rows above its own in this
// list, never of those below. A row names a folder with all that is under it; the longest match counts.
var layers = [][]string{
	{"internal/errs"},
	{"internal/id", "internal/failpoint"},
	{"internal/cleanup", "internal/version", "internal/statefile", "internal/buildcache",
		"internal/inotify", "internal/lazyregexp", "internal/relay", "openapi", "web", "extension", "internal/server/rest", "internal/server/contract", "internal/server/portname", "internal/pki", "internal/proc", "internal/snapshot/blockmap", "internal/sparse",
		"internal/publicaddr", "internal/webhook"},
	{"internal/cgroup", "internal/postgres"},
	{"client"},
	{"internal/build", "proto"},
	{"internal/vmm", "internal/disk", "internal/network", "internal/template", "internal/snapshot", "internal/guest/mmds"},
	{"internal/pager"},
	{"internal/vmm/vmmtest", "internal/disk/disktest", "internal/network/networktest"},
	{"internal/vmm/firecracker", "internal/disk/devmapper", "internal/disk/dm", "internal/disk/loop", "internal/network/linux"},
	{"internal/guest/clock", "internal/guest/smallfile"},
	{"internal/guest/identity"},
	{"internal/guest/clone"},
	{"internal/guest/init", "internal/guest/envd", "internal/guest/client"},
	{"internal/sandbox", "internal/hostcheck", "internal/leftovers"},
	{"internal/hostagent"},
	{"internal/assembly"},
	{"internal/server/store"},
	{"internal/server/lease", "internal/server/metrics"},
	{"internal/server/auth", "internal/server/control", "internal/server/hooks", "internal/server/extend", "internal/server/pages", "internal/server/hosts"},
	{"internal/server/api", "internal/server/proxy"},
	{"internal/server/servertest"},
	{"internal/server"},
	{"internal/cli"},
	{"wrenn.dev/wrenn"}, // the module's own package
	{"cmd", "examples", "images", "tools", "test"},
}

// apart are rows of one layer whose members must not know each other: each can be replaced alone.
var apart = [][2]string{
	{"internal/vmm", "internal/disk"}, {"internal/vmm", "internal/network"}, {"internal/disk", "internal/network"},
	{"internal/guest/envd", "internal/guest/client"}, {"internal/sandbox", "internal/vmm/firecracker"},
	{"internal/sandbox", "internal/disk/devmapper"}, {"internal/sandbox", "internal/network/linux"},
	{"internal/sandbox", "internal/guest"}, {"internal/hostagent", "internal/guest/envd"}, {"internal/hostagent", "internal/vmm/firecracker"},
	{"internal/server", "internal/sandbox"}, {"internal/server", "internal/assembly"}, {"internal/server", "internal/postgres"},
	{"internal/server/auth", "internal/server/control"}, {"internal/server/hooks", "internal/server/auth"}, {"internal/server/hooks", "internal/server/control"},
	{"internal/server/control", "internal/server/hosts"},
	{"internal/server/api", "internal/server/proxy"},
	{"internal/hostagent", "internal/disk"}, {"internal/leftovers", "internal/vmm"}, {"internal/leftovers", "internal/disk"},
	{"internal/leftovers", "internal/network"},
}

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

// packages lists the module's packages, with the files that a plain build sees.
func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 10 {
		t.Fatalf("found %d packages: the test does not see the code base", len(list))
	}
	return list
}

// layer returns the row of a package and the folder that placed it there, -1 when none does.
func layer(path string) (row int, folder string) {
	row = -1
	for i, names := range layers {
		for _, name := range names {
			if within(path, name) && len(name) > len(folder) {
				row, folder = i, name
			}
		}
	}
	return row, folder
}

func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		row, folder := layer(from)
		if row < 0 {
			t.Errorf("%s is in no layer: add its folder to the list, with thought", from)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if !ours || within(to, folder) {
				continue
			}
			toRow, _ := layer(to)
			if toRow >= row {
				t.Errorf("%s (layer %d) imports %s (layer %d): imports point to lower layers only", from, row, to, toRow)
			}
		}
	}
}

func TestPartsDoNotKnowEachOther(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		if from == "internal/server/servertest" {
			continue // for tests alone, it puts a server on a host in memory and a real database
		}
		for _, imported := range p.Imports {
			to := strings.TrimPrefix(imported, module)
			for _, pair := range apart {
				for _, way := range [][2]string{{pair[0], pair[1]}, {pair[1], pair[0]}} {
					if within(from, way[0]) && within(to, way[1]) && !within(way[1], way[0]) && !within(way[0], way[1]) {
						t.Errorf("%s imports %s: the two are kept apart", from, to)
					}
				}
			}
		}
	}
}

// TestRawMemoryIsFenced keeps what can corrupt memory in files that say so.
func TestRawMemoryIsFenced(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			if strings.HasSuffix(name, "_unsafe.go") || strings.HasSuffix(name, ".pb.go") {
				continue
			}
			for _, imported := range imports(t, filepath.Join(p.Dir, name)) {
				if imported == "unsafe" {
					t.Errorf("%s/%s imports unsafe: such code lives in *_unsafe.go", p.ImportPath, name)
				}
			}
		}
	}
}

// TestTheClientBringsNothingAlong: who imports it gets neither server nor agent. Signatures of webhooks are checked by what the server makes them with,
// which is small and needs nothing but the kinds of errors.
func TestTheClientBringsNothingAlong(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"client").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		if ours, ok := strings.CutPrefix(strings.TrimSpace(path), module); ok && !within(ours, "client") && ours != "internal/webhook" && ours != "internal/errs" {
			t.Errorf("package client has %s in it", ours)
		}
	}
}

// heavy are modules whose start takes milliseconds or megabytes. Every sandbox's pager is a process of the program, so they stay out of it.
var heavy = []string{"github.com/getkin/kin-openapi", "github.com/santhosh-tekuri/jsonschema", "buf.build/go/protovalidate"}

func TestTheProgramStartsLight(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"cmd/wrenn").Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		for _, name := range heavy {
			if within(strings.TrimSpace(path), name) {
				t.Errorf("cmd/wrenn has %s in it", strings.TrimSpace(path))
			}
		}
	}
}
