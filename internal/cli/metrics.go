package cli

import (
	"net"
	"net/http"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// metricsTime bounds a scrape, from its first byte to its last.
const metricsTime = 30 * time.Second

// serveMetrics answers GET /metrics at an address of its own, until stop: the API's callers have no business with it, and Prometheus has no key of
// theirs.
func serveMetrics(address string, metrics http.Handler) (stop func(), err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errs.Field("--metrics-listen", err.Error(), "give an address that is free, such as 127.0.0.1:9464")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	h := &http.Server{Handler: mux, ReadTimeout: metricsTime, WriteTimeout: metricsTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	go func() { _ = h.Serve(l) }()
	return func() { _ = h.Close() }, nil
}
