package pager

import (
	"encoding/json"
	"time"
)

// LatencyBounds are the upper bounds of Stats.Latency's buckets but the last, which has none.
var LatencyBounds = [...]time.Duration{
	5 * time.Microsecond, 10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond,
	250 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond,
}

// Stats counts what a pager did. Pages are the machine's, of 4096 bytes or 2 MiB, but for Recorded.
type Stats struct {
	Faults  uint64 `json:"faults"`   // messages about a missing page
	Present uint64 `json:"present"`  // pages that are there
	InBytes uint64 `json:"in_bytes"` // bytes copied in from files

	Copied  uint64 `json:"copied"`  // pages brought in from files
	Zeroed  uint64 `json:"zeroed"`  // pages made of zeros
	Removed uint64 `json:"removed"` // pages that the machine gave back, each time it did
	Again   uint64 `json:"again"`   // times that an answer had to wait for a removal
	Exists  uint64 `json:"exists"`  // pages that were there when they were to be made

	Prefetched   uint64 `json:"prefetched"`    // pages brought in from the working set
	PrefetchHits uint64 `json:"prefetch_hits"` // faults for a page that the prefetch had just brought in
	PrefetchDone bool   `json:"prefetch_done"`
	PrefetchNote string `json:"prefetch_note,omitempty"` // why the working set was not used
	Streamed     uint64 `json:"streamed"`                // pages brought in because there was nothing else to do
	Recorded     uint64 `json:"recorded"`                // pages of 4096 bytes in the record

	// Latency counts faults by the time from the reading of their message to their answer, by LatencyBounds.
	Latency [len(LatencyBounds) + 1]uint64 `json:"latency"`

	End string `json:"end,omitempty"` // how it ended: EndMachine, EndAllIn or the error
}

// How a pager ends when all is well.
const (
	EndMachine = "the machine ended"
	EndAllIn   = "all memory is in"
)

// String is the stats as one line of JSON.
func (s Stats) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *Stats) took(d time.Duration) {
	i := 0
	for i < len(LatencyBounds) && d > LatencyBounds[i] {
		i++
	}
	s.Latency[i]++
}
