//go:build hosttest

package linux

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/network"
)

// TestUsageIsWhatGoesOutside: a conversation with the world is counted both ways, one with the host is not.
func TestUsageIsWhatGoesOutside(t *testing.T) {
	newWorld(t)
	d := newDriver(t, Config{Slots: 1})
	sandbox, slot := acquire(t, d, network.Policy{Internet: true})
	g := newGuest(t, sandbox, slot)
	const port, payload = 4000, 64 << 10
	go serve(g.listen("tcp4", ":"+strconv.Itoa(port)))
	usage := func() network.Usage {
		t.Helper()
		u, err := d.Usage(t.Context(), sandbox)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	say := func(conn net.Conn, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() { _, _ = conn.Write(bytes.Repeat([]byte("x"), payload)) }() // read below, as an echo
		if _, err := io.CopyN(io.Discard, conn, payload); err != nil {
			t.Fatal(err)
		}
	}
	before := usage()
	say(d.Dial(t.Context(), sandbox, port))
	if after := usage(); after.ReceivedBytes-before.ReceivedBytes >= payload || after.SentBytes-before.SentBytes >= payload {
		t.Errorf("what the host said is counted: %+v, and before it %+v", after, before)
	}
	before = usage()
	say(g.dial("tcp", "", net.JoinHostPort(public[0], worldPort), time.Minute))
	if after := usage(); after.ReceivedBytes-before.ReceivedBytes < payload || after.SentBytes-before.SentBytes < payload {
		t.Errorf("%d bytes each way: %+v, and before it %+v", payload, after, before)
	}
}
