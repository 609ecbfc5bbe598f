package lazyregexp

import "testing"

func TestCompiledOnce(t *testing.T) {
	word := New(`^[a-z]{1,3}$`)
	if !word().MatchString("abc") || word().MatchString("abcd") {
		t.Error("it does not match")
	}
	if first, second := word(), word(); first != second {
		t.Error("it was compiled twice")
	}
}
