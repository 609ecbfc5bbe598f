package snapshot

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

const (
	idA = "bd-aaaaaaaaaaaaaaaaaaaa"
	idB = "bd-bbbbbbbbbbbbbbbbbbbb"
)

// mapOf is the map of a build that keeps some pages, over a parent's.
func mapOf(t *testing.T, parent *blockmap.Map, build string, changes ...blockmap.Change) *blockmap.Map {
	t.Helper()
	m, err := blockmap.Merge(parent, build, slices.Values(changes))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func zeroMap(t *testing.T, pages int64) *blockmap.Map {
	t.Helper()
	m, err := blockmap.Zero(pages)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCheckMap(t *testing.T) {
	m := &manifest.Manifest{Build: idB, Machine: manifest.Machine{MemoryMiB: 1}, Needs: []manifest.Need{{Build: idA}}}
	zero := zeroMap(t, pages)
	a := mapOf(t, zero, idA, blockmap.Change{Start: 1, Count: 2, Offset: pageSize})
	if err := checkMap(mapOf(t, a, idB, blockmap.Change{Start: 2, Count: 1, Offset: 2 * pageSize}), m); err != nil {
		t.Error(err)
	}
	for says, blocks := range map[string]*blockmap.Map{
		"the machine has":         zeroMap(t, pages+1),
		"which the manifest does": mapOf(t, a, "bd-cccccccccccccccccccc", blockmap.Change{Start: 2, Count: 1, Offset: 2 * pageSize}),
		"has page 2 at byte 0":    mapOf(t, a, idB, blockmap.Change{Start: 2, Count: 1}),
	} {
		if err := checkMap(blocks, m); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

func TestCheckSources(t *testing.T) {
	change := blockmap.Change{Start: 1, Count: 2, Offset: pageSize}
	b := &Build{ID: idB, Map: mapOf(t, zeroMap(t, pages), idA, change)}
	sources := func(m *blockmap.Map) map[string]*Build { return map[string]*Build{idA: {ID: idA, Map: m}, idB: b} }
	if err := b.checkSources(sources(b.Map)); err != nil {
		t.Error(err)
	}
	change.Count = 1
	for says, m := range map[string]*blockmap.Map{
		"page 2 is not kept by": mapOf(t, zeroMap(t, pages), idA, change),
		"which has 2":           zeroMap(t, 2),
	} {
		if err := b.checkSources(sources(m)); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}
