package client_test

import (
	"io"
	"net/http"
	"testing"

	"wrenn.dev/wrenn/client"
)

// FuzzStreams: whatever a server sends as a stream, it is read to an end, which is an event, an exit or an error.
func FuzzStreams(f *testing.F) {
	for _, seed := range []string{"id: 1.1\nevent: state\ndata: {\"state\":\"running\"}\n\n", "event: watching\ndata:\n\nevent: error\ndata: {\"code\":\"not_found\"}\n\n",
		`{"type":"started","pid":1}` + "\n" + `{"type":"stdout","encoding":"base64","data":"/w=="}` + "\n" + `{"type":"ended","exit_code":1}` + "\n", "data: a\ndata: b\n\n: x\n\n", `{"type":"error"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){answer(200, string(data))}}
		c := scripted(t, s, client.WithRetries(0))
		ended := false
		for _, err := range c.Events(t.Context(), client.EventOptions{}) {
			ended = err != nil
		}
		if !ended {
			t.Error("events end without an error")
		}
		if p, err := c.Sandboxes.Of(someone).Start(t.Context(), client.Command{Cmd: "x", Stdout: io.Discard, Stderr: io.Discard}); err == nil {
			_, _ = p.Wait() // it comes back
		}
		if changes, err := c.Sandboxes.Of(someone).Files().Watch(t.Context(), "x", false); err == nil {
			for range changes { // it ends
			}
		}
	})
}
