package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// monitor speaks QMP with QEMU.
type monitor struct {
	mu   sync.Mutex
	conn net.Conn
	dec  *json.Decoder
}

// newMonitor greets QEMU, which answers once it has opened all of its files.
func newMonitor(conn net.Conn, patience time.Duration) (*monitor, error) {
	m := &monitor{conn: conn, dec: json.NewDecoder(conn)}
	_ = conn.SetDeadline(time.Now().Add(patience))
	var greeting struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := m.dec.Decode(&greeting); err != nil {
		return nil, err
	}
	if greeting.QMP == nil {
		return nil, errors.New("QEMU's monitor did not greet")
	}
	_, err := m.call(patience, "qmp_capabilities", nil)
	return m, err
}

// call runs a command and returns what it returned.
func (m *monitor) call(patience time.Duration, command string, arguments any) (json.RawMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.conn.SetDeadline(time.Now().Add(patience))
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return nil, err
	}
	if _, err := m.conn.Write(append(request, '\n')); err != nil {
		return nil, err
	}
	for {
		var reply struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := m.dec.Decode(&reply); err != nil {
			return nil, err
		}
		switch {
		case reply.Error != nil:
			return nil, fmt.Errorf("QEMU's monitor: %s: %s", command, reply.Error.Desc)
		case reply.Return != nil:
			return reply.Return, nil
		} // else an event, which nobody asked for
	}
}

// registers is the CPU's state as QEMU prints it.
func (m *monitor) registers(patience time.Duration) (string, error) {
	out, err := m.call(patience, "human-monitor-command", map[string]string{"command-line": "info registers"})
	if err != nil {
		return "", err
	}
	var text string
	return text, json.Unmarshal(out, &text)
}
