package machine

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// fakeQEMU answers a monitor's requests in turn. An empty answer hangs up.
func fakeQEMU(t *testing.T, greeting string, answers ...string) net.Conn {
	t.Helper()
	here, there, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = here.Close()
		<-done
	})
	go func() {
		defer close(done)
		defer there.Close()
		fmt.Fprintln(there, greeting)
		requests := bufio.NewScanner(there)
		for _, a := range answers {
			if !requests.Scan() || a == "" {
				return
			}
			fmt.Fprintln(there, a)
		}
		requests.Scan()
	}()
	return here
}

const greeting = `{"QMP": {"version": {}, "capabilities": []}}`

func TestMonitor(t *testing.T) {
	conn := fakeQEMU(t, greeting, `{"return": {}}`, `{"event": "RTC_CHANGE"}`+"\n"+`{"return": "RIP=1\r\n"}`, `{"error": {"desc": "no such command"}}`)
	m, err := newMonitor(conn, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := m.registers(time.Minute); err != nil || text != "RIP=1\r\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := m.call(time.Minute, "bogus", nil); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("err = %v", err)
	}
}

func TestMonitorOfADeadOrStrangeQEMU(t *testing.T) {
	for name, conn := range map[string]net.Conn{
		"ends at once":   fakeQEMU(t, greeting, ""),
		"does not greet": fakeQEMU(t, `{"hello": 1}`),
		"says nonsense":  fakeQEMU(t, "nonsense"),
	} {
		if _, err := newMonitor(conn, time.Minute); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestMonitorDoesNotWaitForEver(t *testing.T) {
	conn := fakeQEMU(t, greeting, `{"return": {}}`)
	m, err := newMonitor(conn, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.registers(10 * time.Millisecond); err == nil {
		t.Error("no error")
	}
}
