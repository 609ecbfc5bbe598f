package uffdtest

import "testing"

func TestFakeIsLikeTheRealOne(t *testing.T) {
	Run(t, func(t *testing.T) Machine {
		f, err := NewFake(Range{Start: 1 << 30, Length: 8 * Page, PageSize: Page})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	})
}
