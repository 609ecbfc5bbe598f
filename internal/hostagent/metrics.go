package hostagent

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"wrenn.dev/wrenn/internal/errs/rpccode"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/version"
	"wrenn.dev/wrenn/internal/vmm"
)

// metrics are what Prometheus reads of an agent.
type metrics struct {
	registry    *prometheus.Registry
	operations  *prometheus.CounterVec
	took        *prometheus.HistogramVec
	phases      *prometheus.HistogramVec
	changes     *prometheus.CounterVec
	adopted     *prometheus.CounterVec
	streams     prometheus.Gauge
	connections prometheus.Gauge
	fileCalls   *prometheus.CounterVec
	fileBytes   *prometheus.CounterVec
	writes      *prometheus.HistogramVec
}

// seconds are the bounds of the histograms: from a resume out of the page cache to the freeze of a large machine.
var seconds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

func newMetrics(a *Agent) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds}, labels)
	}
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		operations:  counter("wrenn_operations_total", "Operations that have ended, by outcome: ok, or the error's code.", "operation", "outcome"),
		took:        histogram("wrenn_operation_seconds", "What operations took, with the time in line.", "operation"),
		phases:      histogram("wrenn_operation_phase_seconds", "What the phases of operations took.", "operation", "phase"),
		changes:     counter("wrenn_state_changes_total", "Changes of state of sandboxes, by the new state.", "state"),
		adopted:     counter("wrenn_adopted_total", "Sandboxes that were taken over at the agent's start, by the state they were brought into.", "state"),
		streams:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "wrenn_command_streams", Help: "Streams of commands that are open."}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "wrenn_port_connections", Help: "Connections to ports of guests that are open."}),
		fileCalls:   counter("wrenn_file_calls_total", "Calls on guests' files that have ended, by outcome: ok, or the error's code.", "call", "outcome"),
		fileBytes:   counter("wrenn_file_bytes_total", "Bytes of guests' files that were read or written.", "direction"),
		writes:      histogram("wrenn_record_write_seconds", "What it took to put a sandbox's record on disk, by outcome: ok or error.", "outcome"),
	}
	m.registry.MustRegister(m.operations, m.took, m.phases, m.changes, m.adopted, m.streams, m.connections, m.fileCalls, m.fileBytes, m.writes, &now{a},
		newTaken(a), buildInfo(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// operation counts one that has ended.
func (m *metrics) operation(name, outcome string, took time.Duration, phases []vmm.Step) {
	m.operations.WithLabelValues(name, outcome).Inc()
	m.took.WithLabelValues(name).Observe(took.Seconds())
	for _, p := range phases {
		m.phases.WithLabelValues(name, phaseLabel(p.Name)).Observe(p.Took.Seconds())
	}
}

// recordWritten counts a record that was put on disk, or was not.
func (m *metrics) recordWritten(took time.Duration, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	m.writes.WithLabelValues(outcome).Observe(took.Seconds())
}

// buildInfo says which version the agent is.
func buildInfo() prometheus.Collector {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "wrenn_build_info", Help: "Always 1, with the agent's version."}, []string{"version"})
	g.WithLabelValues(version.String()).Set(1)
	return g
}

// fileCall counts a call on a guest's files that has ended.
func (m *metrics) fileCall(call string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = rpccode.Of(err).String()
	}
	m.fileCalls.WithLabelValues(call, outcome).Inc()
}

// phaseLabel is a phase's name, unless the guest chose it: there would be no end of them.
func phaseLabel(name string) string {
	for _, prefix := range []string{"wake.", "warm.wake."} {
		if strings.HasPrefix(name, prefix) {
			return prefix + "guest"
		}
	}
	return name
}

// now are the metrics that are what they are at the moment.
type now struct{ a *Agent }

var (
	sandboxesDesc  = prometheus.NewDesc("wrenn_sandboxes", "Sandboxes by state.", []string{"state"}, nil)
	operationsDesc = prometheus.NewDesc("wrenn_operations_running", "Operations under way.", nil, nil)
	adoptingDesc   = prometheus.NewDesc("wrenn_adopting", "Sandboxes that are still to be taken over.", nil, nil)
	slotsDesc      = prometheus.NewDesc("wrenn_network_slots_used", "Network slots that sandboxes have.", nil, nil)
	readyDesc      = prometheus.NewDesc("wrenn_network_slots_ready", "Network slots that are built and no sandbox's yet.", nil, nil)
	readyTakenDesc = prometheus.NewDesc("wrenn_network_slots_taken_total", "Network slots that sandboxes took while some are kept ready, by whether theirs was.", []string{"ready"}, nil)
	slotsMostDesc  = prometheus.NewDesc("wrenn_network_slots_limit", "Network slots that there are.", nil, nil)
	reservedDesc   = amountDescs("reserved", "What sandboxes were promised together")
	limitDesc      = amountDescs("limit", "What sandboxes may be promised together, 0 for no limit")
)

// amountDescs are a quota's metrics: one each unit, in the order of amounts.
func amountDescs(name, help string) []*prometheus.Desc {
	var list []*prometheus.Desc
	for _, unit := range []string{"sandboxes", "vcpus", "memory_bytes", "disk_bytes"} {
		list = append(list, prometheus.NewDesc("wrenn_"+name+"_"+unit, help+".", nil, nil))
	}
	return list
}

// amounts are the numbers of an amount, in the order of amountDescs.
func amounts(a quota.Amount) []float64 {
	return []float64{float64(a.Sandboxes), float64(a.VCPUs), float64(a.MemoryMiB) * (1 << 20), float64(a.DiskBytes)}
}

// Describe implements prometheus.Collector.
func (n *now) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range slices.Concat([]*prometheus.Desc{sandboxesDesc, operationsDesc, adoptingDesc, slotsDesc, slotsMostDesc, readyDesc, readyTakenDesc}, reservedDesc, limitDesc) {
		ch <- d
	}
}

// allStates are those that a record can be in, so that each is there with a zero.
var allStates = []sandbox.State{sandbox.Starting, sandbox.Running, sandbox.Pausing, sandbox.Paused, sandbox.Resuming, sandbox.Stopping,
	sandbox.Failed, sandbox.Lost, sandbox.Unreadable}

// Collect implements prometheus.Collector.
func (n *now) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	states := n.a.States()
	for _, s := range allStates {
		gauge(sandboxesDesc, float64(states[s]), string(s))
	}
	gauge(operationsDesc, float64(n.a.running.Load()))
	gauge(adoptingDesc, float64(n.a.adopting.Load()))
	used, most := n.a.m.Slots()
	gauge(slotsDesc, float64(used))
	gauge(slotsMostDesc, float64(most))
	ready := n.a.m.Ready()
	gauge(readyDesc, float64(ready.Ready))
	for was, count := range map[string]uint64{"true": ready.Hits, "false": ready.Misses} {
		ch <- prometheus.MustNewConstMetric(readyTakenDesc, prometheus.CounterValue, float64(count), was)
	}
	for i, value := range amounts(n.a.ledger.Used()) {
		gauge(reservedDesc[i], value)
	}
	for i, value := range amounts(n.a.ledger.Limits()) {
		gauge(limitDesc[i], value)
	}
}

// Metrics is where the agent's metrics are gathered from.
func (a *Agent) Metrics() prometheus.Gatherer { return a.metrics.registry }
