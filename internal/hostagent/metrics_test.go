package hostagent_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
)

// gather reads the metrics by name, and fails the test for a name or unit that is not as Prometheus's are.
func gather(t *testing.T, a *hostagent.Agent) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := a.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range families {
		all[f.GetName()] = f
	}
	return all
}

// value is the only one of a metric without labels.
func value(t *testing.T, all map[string]*dto.MetricFamily, name string) float64 {
	t.Helper()
	f := all[name]
	if f == nil || len(f.GetMetric()) != 1 {
		t.Errorf("%s: %v", name, f)
		return -1
	}
	m := f.GetMetric()[0]
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

// TestMetrics: they have what sandboxes take and what their pagers did, and a counter does not go back when a sandbox goes.
func TestMetrics(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{VCPUs: 7})
	one, two := w.create(a, hostagent.Spec{}), w.create(a, hostagent.Spec{})
	all := gather(t, a)
	for name, want := range map[string]float64{
		"wrenn_measured_sandboxes": 2, "wrenn_unmeasured_sandboxes": 0, "wrenn_pager_faults_total": 6, "wrenn_pager_memory_bytes": 8192,
		"wrenn_machine_memory_bytes": 2 * 256 << 10, "wrenn_network_slots_used": 2, "wrenn_reserved_sandboxes": 2, "wrenn_limit_vcpus": 7,
		"wrenn_disks_failed": 0, "wrenn_adopting": 0, "wrenn_build_info": 1,
	} {
		if got := value(t, all, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"wrenn_network_slots_limit", "wrenn_disk_store_capacity_bytes", "go_goroutines", "process_open_fds",
		"process_resident_memory_bytes"} {
		if value(t, all, name) <= 0 {
			t.Errorf("%s is nothing", name)
		}
	}
	if n := all["wrenn_record_write_seconds"].GetMetric()[0].GetHistogram().GetSampleCount(); n < 4 {
		t.Errorf("%d records were written", n)
	}
	if _, err := a.Destroy(t.Context(), one.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Pause(t.Context(), two.ID, "idle"); err != nil {
		t.Fatal(err)
	}
	all = gather(t, a)
	if got := value(t, all, "wrenn_pager_faults_total"); got != 6 {
		t.Errorf("when the pagers are gone there were %v faults", got)
	}
	if got := value(t, all, "wrenn_network_slots_used"); got != 0 {
		t.Errorf("%v slots are taken", got)
	}
	for name := range all {
		if strings.Contains(name, one.ID) {
			t.Errorf("%s is of one sandbox", name)
		}
	}
}
