package cli

import (
	"net/url"
	"strings"
	"testing"
)

func TestURL(t *testing.T) {
	ways["server"](t, newWorld(t))
	id := made(t)
	name := "http://8000-" + strings.TrimPrefix(id, "cl-") + ".localhost:"
	if code, out, errOut := wrenn(t, "", "url", id, "8000"); code != 0 || !strings.HasPrefix(out, name) || strings.Contains(out, "token") {
		t.Error(code, out, errOut)
	}
	_, out, _ := wrenn(t, "", "url", "--token", "--json", id, "8000")
	v := decode[urlView](t, out)
	if u, err := url.Parse(v.URL); err != nil || !strings.HasPrefix(v.Token, "wrenn_port_") || u.Query().Get("wrenn_access_token") != v.Token || v.Public {
		t.Error(out, err)
	}
	if _, out, _ := wrenn(t, "", "url", "--public", "--json", id, "8000"); !decode[urlView](t, out).Public {
		t.Error(out)
	}
	for line, code := range map[string]int{"url " + id + " x": exitUsage, "url " + id + " 65536": exitUsage, "url " + id: exitUsage,
		"url --token --public " + id + " 80": exitUsage, "url cl-0123456789abcdefghij 80": exitFailed, "url --context local " + id + " 80": exitFailed} {
		if got, _, errOut := wrenn(t, "", split(line)...); got != code {
			t.Errorf("%s: %d, %q", line, got, errOut)
		}
	}
}
