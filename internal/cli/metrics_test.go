package cli

import (
	"errors"
	"net"
	"net/http"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestMetricsAreAtAnAddressOfTheirOwn(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if _, err := serveMetrics(address, http.NotFoundHandler()); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("an address that is taken: %v", err)
	}
	free.Close()
	stop, err := serveMetrics(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]int{"/metrics": http.StatusNoContent, "/v1/sandboxes": http.StatusNotFound} {
		resp, err := client.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}
