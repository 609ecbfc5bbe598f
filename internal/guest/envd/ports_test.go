package envd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// join asks an envd for a port and returns the connection with the answer's status.
func join(t *testing.T, url, port, token, protocol string) (net.Conn, *bufio.Reader, int) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ports/%s HTTP/1.1\r\nHost: envd\r\nX-Access-Token: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", port, token, protocol)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, r, resp.StatusCode
}

// TestPortsOfTheGuestItself on both loopback addresses, for who has the token alone.
func TestPortsOfTheGuestItself(t *testing.T) {
	url := serve(t, identity())
	for _, address := range loopbacks {
		l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}()
		port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
		if _, _, status := join(t, url, port, "wrong", PortProtocol); status != http.StatusUnauthorized {
			t.Errorf("without the token: %d", status)
		}
		if _, _, status := join(t, url, port, token, "websocket"); status != http.StatusUpgradeRequired {
			t.Errorf("another protocol: %d", status)
		}
		c, r, status := join(t, url, port, token, PortProtocol)
		if status != http.StatusSwitchingProtocols {
			t.Fatalf("%s: %d", address, status)
		}
		fmt.Fprintln(c, "hello")
		if line, err := r.ReadString('\n'); line != "hello\n" || err != nil {
			t.Errorf("%s: %q %v", address, line, err)
		}
		c.Close()
		l.Close()
		if _, _, status := join(t, url, port, token, PortProtocol); status != http.StatusBadGateway {
			t.Errorf("a closed port: %d", status)
		}
	}
	for port, want := range map[string]int{"0": 400, "65536": 400, "-1": 400, "http": 400, fmt.Sprint(Port): 403} {
		if _, _, status := join(t, url, port, token, PortProtocol); status != want {
			t.Errorf("port %s: %d, want %d", port, status, want)
		}
	}
}
