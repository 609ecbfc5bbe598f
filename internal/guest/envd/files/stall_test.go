package files

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// server serves files over a real connection, whose clients may stop only for a moment.
func server(t *testing.T, stall time.Duration) (addr, dir string) {
	t.Helper()
	h, dir := home(t)
	limits := DefaultLimits()
	limits.Stall = stall
	h = New(h.users, limits)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := ParseQuery(r.URL)
		if err != nil {
			WriteError(w, err)
			return
		}
		h.Serve(w, r, q, false)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), dir
}

func dial(t *testing.T, addr, request string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c
}

const put = "PUT /files?path=f HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"

// TestClientsThatStop are let go of, and leave nothing.
func TestClientsThatStop(t *testing.T) {
	addr, dir := server(t, 50*time.Millisecond)
	c := dial(t, addr, put+"Content-Length: 1000\r\n\r\nhalf of it")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(answer), " 400 Bad Request") {
		t.Errorf("an upload that stops: got %q, %v", answer, err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<30); err != nil {
		t.Fatal(err)
	}
	c = dial(t, addr, "GET /files?path=large HTTP/1.1\r\nHost: x\r\n\r\n")
	time.Sleep(300 * time.Millisecond) // nothing is taken meanwhile
	n, _ := io.Copy(io.Discard, c)
	if n >= 1<<30 {
		t.Error("a download that stopped came to its end")
	}
	if err := os.Remove(large); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}

// unnamed counts this process's open files in a folder that have no name.
func unnamed(t *testing.T, dir string) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, dir+"/#") {
			n++
		}
	}
	return n
}

// TestAClientThatGoes in the middle of an upload leaves nothing.
func TestAClientThatGoes(t *testing.T) {
	addr, dir := server(t, time.Minute)
	for _, length := range []string{"Content-Length: 1000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n"} {
		c := dial(t, addr, put+length+"half")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if unnamed(t, dir) == 1 {
				break // it is being stored
			}
		}
		c.Close()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			list, err := os.ReadDir(dir)
			if err == nil && len(list) == 0 && unnamed(t, dir) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("left: %v, %v", list, err)
			}
		}
	}
}

// TestAConnectionIsUsedAgain: what a transfer set for its own time does not end the next request.
func TestAConnectionIsUsedAgain(t *testing.T) {
	addr, dir := server(t, 100*time.Millisecond)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	var used []string
	for range 3 {
		resp, err := (&http.Client{Transport: transport}).Get(fmt.Sprintf("http://%s/files?path=f", addr))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if used = append(used, string(b)); err != nil {
			t.Error(err)
		}
		resp.Body.Close()
		time.Sleep(200 * time.Millisecond)
	}
	if strings.Join(used, "") != "texttexttext" {
		t.Errorf("got %q", used)
	}
}
