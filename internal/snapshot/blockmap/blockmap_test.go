package blockmap

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	buildA = "bd-aaaaaaaaaaaaaaaaaaaa"
	buildB = "bd-bbbbbbbbbbbbbbbbbbbb"
	buildC = "bd-cccccccccccccccccccc"
)

func zero(t testing.TB, pages int64) *Map {
	t.Helper()
	m, err := Zero(pages)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func merge(t testing.TB, parent *Map, build string, changes ...Change) *Map {
	t.Helper()
	m, err := Merge(parent, build, slices.Values(changes))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMergeShadowsJoinsAndNeverFallsThrough(t *testing.T) {
	a := merge(t, zero(t, 16), buildA, Change{Start: 2, Count: 4, Offset: 2 * PageSize}, Change{Start: 6, Count: 2, Offset: 6 * PageSize})
	want := []Range{{0, 2, "", 0}, {2, 6, buildA, 2 * PageSize}, {8, 8, "", 0}}
	if d := cmp.Diff(want, slices.Collect(a.Ranges())); d != "" {
		t.Fatal(d)
	}
	b := merge(t, a, buildB, Change{Start: 3, Count: 1, Zero: true}, Change{Start: 7, Count: 2, Offset: 7 * PageSize}, Change{Start: 15, Count: 1, Zero: true})
	want = []Range{
		{0, 2, "", 0}, {2, 1, buildA, 2 * PageSize}, {3, 1, "", 0}, {4, 3, buildA, 4 * PageSize},
		{7, 2, buildB, 7 * PageSize}, {9, 7, "", 0},
	}
	if d := cmp.Diff(want, slices.Collect(b.Ranges())); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff([]string{buildA, buildB}, b.Builds()); d != "" {
		t.Fatal(d)
	}
	stats := Stats{Ranges: 6, Pages: 16, Zero: 10, Stored: map[string]int64{buildA: 4, buildB: 2}}
	if d := cmp.Diff(stats, b.Stats()); d != "" {
		t.Fatal(d)
	}
	want = []Range{{5, 2, buildA, 5 * PageSize}, {7, 1, buildB, 7 * PageSize}}
	if d := cmp.Diff(want, slices.Collect(b.Within(5, 3))); d != "" {
		t.Fatal(d)
	}
}

func TestBuildsThatAreNotUsedAreForgotten(t *testing.T) {
	a := merge(t, zero(t, 4), buildA, Change{Start: 0, Count: 4, Offset: 0})
	b := merge(t, a, buildB, Change{Start: 0, Count: 4, Zero: true})
	if len(b.Builds()) != 0 || b.Stats().Ranges != 1 {
		t.Fatalf("builds %v, %+v", b.Builds(), b.Stats())
	}
}

func TestMergeRefuses(t *testing.T) {
	a := merge(t, zero(t, 8), buildA, Change{Start: 0, Count: 1})
	for name, c := range map[string]struct {
		build   string
		changes []Change
	}{
		"bad id":          {"bd-../../../../../../..", nil},
		"same build":      {buildA, nil},
		"overlap":         {buildB, []Change{{Start: 0, Count: 2}, {Start: 1, Count: 1, Offset: PageSize}}},
		"out of order":    {buildB, []Change{{Start: 4, Count: 1}, {Start: 1, Count: 1}}},
		"empty":           {buildB, []Change{{Start: 4}}},
		"negative":        {buildB, []Change{{Start: -1, Count: 1}}},
		"beyond":          {buildB, []Change{{Start: 7, Count: 2}}},
		"overflow":        {buildB, []Change{{Start: 1 << 62, Count: 1 << 62}}},
		"not aligned":     {buildB, []Change{{Start: 0, Count: 1, Offset: 100}}},
		"offset too far":  {buildB, []Change{{Start: 0, Count: 1, Offset: 1 << 40}}},
		"offset negative": {buildB, []Change{{Start: 0, Count: 1, Offset: -PageSize}}},
	} {
		if m, err := Merge(a, c.build, slices.Values(c.changes)); m != nil || !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	for _, pages := range []int64{-1, 0, MaxPages + 1} {
		if _, err := Zero(pages); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("Zero(%d) = %v", pages, err)
		}
	}
}

func TestMergeRefusesTooManyPieces(t *testing.T) {
	changes := func(yield func(Change) bool) {
		for i := int64(0); ; i++ {
			if !yield(Change{Start: 2 * i, Count: 1, Offset: 2 * i * PageSize}) {
				return
			}
		}
	}
	if _, err := Merge(zero(t, MaxPages), buildA, changes); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Fatal(err)
	}
}

func TestFindOutsidePanics(t *testing.T) {
	m := zero(t, 4)
	for _, page := range []int64{-1, 4} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Find(%d) returned", page)
				}
			}()
			m.Find(page)
		}()
	}
}

// pageRef is where the model has a page.
type pageRef struct {
	build  string
	offset int64
}

// changesOf draws changes for a memory of so many pages, and applies them to the model.
func changesOf(rt *rapid.T, build string, model []pageRef) []Change {
	var out []Change
	for at := int64(0); ; {
		at += rapid.Int64Range(0, 6).Draw(rt, "gap")
		count := rapid.Int64Range(1, 6).Draw(rt, "count")
		if at+count > int64(len(model)) {
			return out
		}
		c := Change{Start: at, Count: count, Zero: rapid.Bool().Draw(rt, "zero")}
		if !c.Zero {
			c.Offset = PageSize * rapid.SampledFrom([]int64{at, at + 1, 0}).Draw(rt, "offset")
		}
		for i := range count {
			model[at+i] = pageRef{}
			if !c.Zero {
				model[at+i] = pageRef{build, c.Offset + i*PageSize}
			}
		}
		out, at = append(out, c), at+count
	}
}

// TestAgainstModel merges generations side by side with an array of one entry a page, and checks everything that the map
// says, before and after it was encoded.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		model := make([]pageRef, rapid.IntRange(1, 60).Draw(rt, "pages"))
		m := zero(t, int64(len(model)))
		for range rapid.IntRange(0, 6).Draw(rt, "generations") {
			build := NewBuildID()
			next, err := Merge(m, build, slices.Values(changesOf(rt, build, model)))
			if err != nil {
				rt.Fatal(err)
			}
			m = next
			checkAgainst(rt, m, model)
			data := m.Encode()
			again, err := Read(bytes.NewReader(data))
			if err != nil {
				rt.Fatal(err)
			}
			checkAgainst(rt, again, model)
			if !bytes.Equal(again.Encode(), data) {
				rt.Fatal("encoding a decoded map gives other bytes")
			}
		}
	})
}

func checkAgainst(rt *rapid.T, m *Map, model []pageRef) {
	builds, zeroes, pieces := map[string]int64{}, int64(0), 0
	for page, want := range model {
		r := m.Find(int64(page))
		got := pageRef{r.Build, r.Offset}
		if !r.Zero() {
			got.offset += (int64(page) - r.Start) * PageSize
		}
		if got != want {
			rt.Fatalf("page %d is at %v, want %v", page, got, want)
		}
		if want.build == "" {
			zeroes++
		} else {
			builds[want.build]++
		}
		next := want
		if page > 0 {
			next = model[page-1]
			if next.build != "" {
				next.offset += PageSize
			}
		}
		if page == 0 || next != want {
			pieces++
		}
	}
	if d := cmp.Diff(Stats{Ranges: pieces, Pages: int64(len(model)), Zero: zeroes, Stored: builds}, m.Stats()); d != "" {
		rt.Fatal(d)
	}
}

func TestBuildIDs(t *testing.T) {
	if a, b := NewBuildID(), NewBuildID(); a == b || CheckBuildID(a) != nil || CheckBuildID(b) != nil {
		t.Fatalf("%s %s", a, b)
	}
	for _, s := range []string{"", "bd-", buildA + "a", buildA[:22], strings.ToUpper(buildA), "cl-aaaaaaaaaaaaaaaaaaaa", "bd-aaaaaaaaa/aaaaaaaaaa", "bd-../../../../../../..", "bd-aaaaaaaaaa.aaaaaaaaa"} {
		if err := CheckBuildID(s); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("CheckBuildID(%q) = %v", s, err)
		}
	}
}
