// Package metrics is what Prometheus reads of a server.
//
//	m := metrics.New(store)
//	m.Request("createSandbox", 201, took)         // the API tells of each request, the agent's client of each call, …
//	handler := m.Handler()
//
// What is in the database is read when it is asked for, and at most every fifteen seconds: several servers of one database tell the same of it, so it
// is to be looked at as the largest of them and not as their sum.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"wrenn.dev/wrenn/internal/errs/rpccode"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/internal/version"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Metrics are a server's. Its methods may be called from several goroutines.
type Metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	took       *prometheus.HistogramVec
	calls      *prometheus.CounterVec
	callTook   *prometheus.HistogramVec
	phases     *prometheus.HistogramVec
	deliveries *prometheus.CounterVec
	sending    prometheus.Histogram
	leases     *prometheus.GaugeVec
}

// seconds are the bounds of the histograms: from a look into the database to the freeze of a large machine.
var seconds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

// New returns the metrics of a server with a store.
func New(s *store.Store) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: counter("wrenn_server_requests_total",
			"Requests that were answered, by the document's operation and the status; none is a path that is not there.", "operation", "status"),
		took:     histogram("wrenn_server_request_seconds", "What requests took, streams their whole length.", "operation"),
		calls:    counter("wrenn_server_agent_calls_total", "Calls of agents that have ended, by outcome: ok, or the error's code.", "call", "outcome"),
		callTook: histogram("wrenn_server_agent_call_seconds", "What calls of agents took.", "call"),
		phases:   histogram("wrenn_server_operation_phase_seconds", "What the phases of operations took, as agents tell.", "operation", "phase"),
		deliveries: counter("wrenn_server_webhook_attempts_total", "Attempts to send to a webhook that have ended: delivered, retried or failed.",
			"outcome"),
		sending: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "wrenn_server_webhook_attempt_seconds",
			Help:    "What attempts to send to a webhook took.",
			Buckets: seconds}),
		leases: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "wrenn_server_lease_held",
			Help: "1 where this server does the work that one of several does."}, []string{"lease"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "wrenn_build_info", Help: "Always 1, with the server's version."}, []string{"version"})
	build.WithLabelValues(version.String()).Set(1)
	m.registry.MustRegister(m.requests, m.took, m.calls, m.callTook, m.phases, m.deliveries, m.sending, m.leases, build, &stored{store: s}, pool{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Request counts a request that was answered. Operation is the document's id of it, empty for none.
func (m *Metrics) Request(operation string, status int, took time.Duration) {
	if operation == "" {
		operation = "none"
	}
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(operation).Observe(took.Seconds())
}

// Call counts a call of an agent that has ended, and the phases that its answer tells of.
func (m *Metrics) Call(c client.Call) {
	name := c.Procedure[strings.LastIndexByte(c.Procedure, '/')+1:]
	outcome := "ok"
	if c.Err != nil {
		outcome = rpccode.Of(c.Err).String()
	}
	m.calls.WithLabelValues(name, outcome).Inc()
	m.callTook.WithLabelValues(name).Observe(c.Took.Seconds())
	if told, ok := c.Answer.(interface{ GetPhases() []*pb.Phase }); ok {
		for _, p := range told.GetPhases() {
			m.phases.WithLabelValues(name, phaseLabel(p.GetName())).Observe((time.Duration(p.GetTookMicroseconds()) * time.Microsecond).Seconds())
		}
	}
}

// phaseLabel is a phase's name, unless a guest chose it: there would be no end of them.
func phaseLabel(name string) string {
	for _, prefix := range []string{"wake.", "warm.wake."} {
		if strings.HasPrefix(name, prefix) {
			return prefix + "guest"
		}
	}
	return name
}

// Delivery counts an attempt to send to a webhook.
func (m *Metrics) Delivery(outcome string, took time.Duration) {
	m.deliveries.WithLabelValues(outcome).Inc()
	m.sending.Observe(took.Seconds())
}

// Lease returns what is to be told when this server has a lease, and when it has it no more.
func (m *Metrics) Lease(name string) func(held bool) {
	g := m.leases.WithLabelValues(name)
	return func(held bool) {
		g.Set(0)
		if held {
			g.Set(1)
		}
	}
}

// scrapeTime bounds one scrape, and atOnce how many there are.
const (
	scrapeTime = 10 * time.Second
	atOnce     = 4
)

// Handler serves the metrics to Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Timeout: scrapeTime, MaxRequestsInFlight: atOnce})
}

const (
	// readTime bounds the reading of the database, and readEvery is how long what was read is good.
	readTime  = 5 * time.Second
	readEvery = 15 * time.Second
)

// stored are the metrics of what is in the database.
type stored struct {
	store *store.Store

	mu    sync.Mutex
	last  store.Counts
	until time.Time
}

var (
	sandboxesDesc = prometheus.NewDesc("wrenn_server_sandboxes", "Sandboxes that have not ended, by state.", []string{"state"}, nil)
	pendingDesc   = prometheus.NewDesc("wrenn_server_webhook_pending", "Messages to webhooks that are still to be sent, or to be sent again.", nil, nil)
	readableDesc  = prometheus.NewDesc("wrenn_server_database_up", "1 when the database could be read; without it, what is in it is not told.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *stored) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sandboxesDesc, pendingDesc, readableDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *stored) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counts, ok := s.read()
	if !ok {
		gauge(readableDesc, 0)
		return
	}
	gauge(readableDesc, 1)
	for _, state := range store.States {
		if !store.Ended(state) {
			gauge(sandboxesDesc, float64(counts.Sandboxes[state]), state)
		}
	}
	gauge(pendingDesc, float64(counts.PendingDeliveries))
}

func (s *stored) read() (store.Counts, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.until) {
		return s.last, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	counts, err := s.store.Count(ctx)
	if err != nil {
		return store.Counts{}, false
	}
	s.last, s.until = counts, time.Now().Add(readEvery)
	return counts, true
}

// pool are the metrics of the connections to the database.
type pool struct{ store *store.Store }

// Of a pool: its gauges and its counters, each with what it is of the pool's numbers.
var (
	poolGauges = map[*prometheus.Desc]func(*pgxpool.Stat) float64{
		poolDesc("connections", "Connections to the database."):  func(s *pgxpool.Stat) float64 { return float64(s.TotalConns()) },
		poolDesc("connections_used", "Those that are used now."): func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) },
		poolDesc("connections_limit", "How many there may be."):  func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) },
	}
	poolCounters = map[*prometheus.Desc]func(*pgxpool.Stat) float64{
		poolDesc("waits_total", "How often a connection was waited for."):       func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) },
		poolDesc("wait_seconds_total", "How long connections were waited for."): func(s *pgxpool.Stat) float64 { return s.AcquireDuration().Seconds() },
		poolDesc("given_up_total", "How often the wait was given up."):          func(s *pgxpool.Stat) float64 { return float64(s.CanceledAcquireCount()) },
	}
)

func poolDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("wrenn_server_database_"+name, help, nil, nil)
}

// Describe implements prometheus.Collector.
func (p pool) Describe(ch chan<- *prometheus.Desc) {
	for d := range poolGauges {
		ch <- d
	}
	for d := range poolCounters {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (p pool) Collect(ch chan<- prometheus.Metric) {
	now := p.store.Pool()
	for d, of := range poolGauges {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, of(now))
	}
	for d, of := range poolCounters {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, of(now))
	}
}
