package clock

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCompareTakesTheQuickestTry(t *testing.T) {
	start := time.Unix(1000, 0)
	durations := []time.Duration{9, 5, 2, 7, 8} // ms that a try takes; the host's answer comes in the middle only in the third
	skews := []time.Duration{3, 2, 0, 1, 4}
	try, second := -1, false
	own := func() (time.Time, error) {
		if second = !second; second {
			try++
			return start, nil
		}
		return start.Add(durations[try] * time.Millisecond), nil
	}
	host := func() (time.Time, error) {
		return start.Add(durations[try]*time.Millisecond/2 + skews[try]*time.Millisecond + time.Hour), nil
	}
	if got, err := compare(host, own); err != nil || got != time.Hour {
		t.Errorf("compare = %v, %v; want 1h", got, err)
	}
}

func TestCompareFails(t *testing.T) {
	bad := errors.New("bad")
	good := func() (time.Time, error) { return time.Now(), nil }
	fail := func() (time.Time, error) { return time.Time{}, bad }
	if _, err := compare(fail, good); !errors.Is(err, bad) {
		t.Errorf("host fails: %v", err)
	}
	if _, err := compare(good, fail); !errors.Is(err, bad) {
		t.Errorf("own fails: %v", err)
	}
}

func TestStepWithoutAClock(t *testing.T) {
	if _, err := Step(t.TempDir() + "/ptp0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Step = %v", err)
	}
	if _, err := Step(os.DevNull); err == nil {
		t.Error("Step took /dev/null for a clock")
	}
}

func TestConfig(t *testing.T) {
	got := Config("/dev/ptp0")
	for _, line := range []string{"refclock PHC /dev/ptp0 poll 3 dpoll -2 offset 0", "makestep 1.0 -1", "cmdport 0", "port 0"} {
		if !strings.Contains("\n"+got, "\n"+line+"\n") {
			t.Errorf("Config lacks %q:\n%s", line, got)
		}
	}
}

func TestUser(t *testing.T) {
	for _, tc := range []struct{ passwd, want string }{
		{"root:x:0:0::/:/bin/sh\n_chrony:x:101:102::/:/bin/false\n", "_chrony"},
		{"chrony:x:101:102::/:/bin/false", "chrony"},
		{"root:x:0:0::/:/bin/sh\nchronyfan:x:1:1::/:/bin/sh\n", "root"},
		{"", "root"},
	} {
		if got := User(strings.NewReader(tc.passwd)); got != tc.want {
			t.Errorf("User(%q) = %q, want %q", tc.passwd, got, tc.want)
		}
	}
}
