package guestinit

import (
	"strings"
	"testing"
)

func TestRoutes(t *testing.T) {
	var got []string
	for _, r := range routes(7) {
		if r.LinkIndex != 7 {
			t.Errorf("route %v is of link %d", r, r.LinkIndex)
		}
		got = append(got, r.Dst.String()+" "+r.Gw.String())
	}
	if want := "169.254.169.254/32 <nil>,0.0.0.0/0 169.254.0.22"; strings.Join(got, ",") != want {
		t.Errorf("routes = %q, want %q", got, want)
	}
}

func TestChronydArgs(t *testing.T) {
	got := strings.Join(chronydArgs("/run/wrenn/chrony.conf", "_chrony"), " ")
	if want := "chronyd -n -f /run/wrenn/chrony.conf -u _chrony -P 1"; got != want {
		t.Errorf("chronydArgs = %q, want %q", got, want)
	}
}

func TestMountsComeInOrder(t *testing.T) {
	made := map[string]bool{}
	for _, m := range mounts {
		for _, later := range mounts {
			if strings.HasPrefix(later.target, m.target+"/") && made[later.target] {
				t.Errorf("%s hides %s", m.target, later.target)
			}
		}
		made[m.target] = true
	}
}
