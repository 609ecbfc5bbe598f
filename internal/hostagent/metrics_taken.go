package hostagent

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wrenn.dev/wrenn/internal/pager"
)

// takenTime bounds how long a scrape waits for what sandboxes take.
const takenTime = 5 * time.Second

// taken are the metrics of what all sandboxes together take of the host, read when they are asked for. There is none by sandbox: they
// come and go, and what one takes is a call of its own.
type taken struct {
	a *Agent

	mu   sync.Mutex
	last map[string]pager.Stats // what each pager had done at the last scrape
	sum  pager.Stats            // what all had
}

func newTaken(a *Agent) *taken { return &taken{a: a, last: map[string]pager.Stats{}} }

var (
	measuredDesc   = prometheus.NewDesc("wrenn_measured_sandboxes", "Sandboxes with a machine that the following were read of.", nil, nil)
	unmeasuredDesc = prometheus.NewDesc("wrenn_unmeasured_sandboxes", "Sandboxes with a machine of which they could not be read.", nil, nil)
	machineDesc    = prometheus.NewDesc("wrenn_machine_memory_bytes", "Memory of the host that machines have, page cache included.", nil, nil)
	pagerDesc      = prometheus.NewDesc("wrenn_pager_memory_bytes", "Memory of the host that page-fault servers have.", nil, nil)
	presentDesc    = prometheus.NewDesc("wrenn_guest_memory_present_bytes", "Guest memory that was brought in, of machines that began from a build.", nil, nil)
	storeUsedDesc  = prometheus.NewDesc("wrenn_disk_store_used_bytes", "What the stores of disks' changes hold.", nil, nil)
	storeSizeDesc  = prometheus.NewDesc("wrenn_disk_store_capacity_bytes", "What they can hold.", nil, nil)
	storeHostDesc  = prometheus.NewDesc("wrenn_disk_store_host_bytes", "What they take on the host's file system.", nil, nil)
	fullestDesc    = prometheus.NewDesc("wrenn_disk_store_fullest_ratio", "How full the fullest of them is, 0 to 1.", nil, nil)
	failedDesc     = prometheus.NewDesc("wrenn_disks_failed", "Disks that have lost a write for want of room.", nil, nil)

	faultsDesc     = prometheus.NewDesc("wrenn_pager_faults_total", "Page faults of machines that were answered, as of the last scrape of each.", nil, nil)
	readDesc       = prometheus.NewDesc("wrenn_pager_read_bytes_total", "Bytes that were read from builds to answer them.", nil, nil)
	zeroedDesc     = prometheus.NewDesc("wrenn_pager_zeroed_pages_total", "Pages that were made of zeros.", nil, nil)
	prefetchedDesc = prometheus.NewDesc("wrenn_pager_prefetched_pages_total", "Pages that were brought in before they were asked for.", nil, nil)
)

// gauges and counters are in the order in which Collect gives their values.
var (
	takenGauges = []*prometheus.Desc{measuredDesc, unmeasuredDesc, machineDesc, pagerDesc, presentDesc, storeUsedDesc, storeSizeDesc, storeHostDesc,
		fullestDesc, failedDesc}
	takenCounters = []*prometheus.Desc{faultsDesc, readDesc, zeroedDesc, prefetchedDesc}
)

// Describe implements prometheus.Collector.
func (t *taken) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range append(takenGauges, takenCounters...) {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (t *taken) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(t.a.life, takenTime)
	defer cancel()
	list, unmeasured, err := t.a.measureAll(ctx)
	if err != nil {
		t.a.log.Error("the records can't be listed", "error", err)
	}
	var machines, pagers, used, capacity, host, fullest, failed float64
	for _, s := range list {
		machines += float64(s.Machine.MemoryBytes)
		if s.Pager != nil {
			pagers += float64(s.Pager.MemoryBytes)
		}
		used += float64(s.Disk.UsedBytes)
		capacity += float64(s.Disk.CapacityBytes)
		host += float64(s.Disk.HostBytes)
		if s.Disk.CapacityBytes > 0 {
			fullest = max(fullest, float64(s.Disk.UsedBytes)/float64(s.Disk.CapacityBytes))
		}
		if s.Disk.Failed {
			failed++
		}
	}
	present, sum := t.add(list)
	values := []float64{float64(len(list)), float64(unmeasured), machines, pagers, present, used, capacity, host, fullest, failed}
	for i, d := range takenGauges {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, values[i])
	}
	for i, n := range []uint64{sum.Faults, sum.InBytes, sum.Zeroed, sum.Prefetched} {
		ch <- prometheus.MustNewConstMetric(takenCounters[i], prometheus.CounterValue, float64(n))
	}
}

// pageBytes is the size of the pages that pagers count, but for those of huge pages.
const pageBytes = 4096

// add adds what pagers did since the last scrape to what all have done, and says how much memory is in now. What one did after its last
// scrape is in no count: a counter never goes back, and misses the ends of machines.
func (t *taken) add(list []Stats) (present float64, sum pager.Stats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[string]pager.Stats, len(list))
	for _, s := range list {
		if s.Pager == nil || s.Pager.Stats == nil {
			continue
		}
		now, before := *s.Pager.Stats, t.last[s.ID]
		if now.Faults < before.Faults || now.InBytes < before.InBytes { // another pager, of a later start
			before = pager.Stats{}
		}
		t.sum.Faults += now.Faults - before.Faults
		t.sum.InBytes += now.InBytes - before.InBytes
		t.sum.Zeroed += now.Zeroed - min(before.Zeroed, now.Zeroed)
		t.sum.Prefetched += now.Prefetched - min(before.Prefetched, now.Prefetched)
		seen[s.ID] = now
		present += float64(now.Present) * pageBytes
	}
	t.last = seen
	return present, t.sum
}
