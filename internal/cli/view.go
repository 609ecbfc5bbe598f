package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/sandbox"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// sandboxView is a sandbox as it is printed, whoever told of it.
type sandboxView struct {
	ID         string            `json:"id"`
	State      string            `json:"state"`
	Reason     string            `json:"reason"`
	Template   string            `json:"template,omitempty"`
	Snapshot   string            `json:"snapshot,omitempty"`
	VCPUs      int               `json:"vcpus"`
	MemoryMiB  int               `json:"memory_mib"`
	DiskBytes  int64             `json:"disk_bytes"`
	Internet   bool              `json:"internet"`
	Labels     map[string]string `json:"labels,omitempty"`
	TTLSeconds int               `json:"ttl_seconds,omitempty"`
	OnExpiry   string            `json:"on_expiry,omitempty"`
	ExpiresAt  *time.Time        `json:"expires_at,omitempty"`
	Changes    []changeView      `json:"changes"`
}

// changeView is a change of state.
type changeView struct {
	State  string    `json:"state"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// origin is what the sandbox began from.
func (v sandboxView) origin() string {
	if v.Snapshot != "" {
		return v.Snapshot
	}
	return v.Template
}

// since is when the sandbox came into its state.
func (v sandboxView) since() time.Time {
	if len(v.Changes) == 0 {
		return time.Time{}
	}
	return v.Changes[len(v.Changes)-1].Time
}

// viewRecord is what the record on disk says.
func viewRecord(r sandbox.Record) sandboxView {
	v := sandboxView{ID: r.ID, State: string(r.State), Template: r.Template, Snapshot: r.Snapshot, VCPUs: r.Parts.VCPUs,
		MemoryMiB: r.Parts.MemoryMiB, DiskBytes: r.Parts.DiskBytes, Internet: r.Policy.Internet, Changes: []changeView{}}
	for _, c := range r.Changes {
		v.Changes = append(v.Changes, changeView{string(c.State), c.Time, c.Reason})
		v.Reason = c.Reason
	}
	return v
}

// viewSandbox is what the agent says.
func viewSandbox(s *pb.Sandbox) sandboxView {
	v := sandboxView{ID: s.GetId(), State: word(s.GetState(), "STATE_"), Reason: s.GetReason(), Template: s.GetTemplate(), Snapshot: s.GetSnapshot(),
		VCPUs: int(s.GetVcpus()), MemoryMiB: int(s.GetMemoryMib()), DiskBytes: int64(s.GetDiskBytes()), Internet: s.GetInternet(),
		Labels: s.GetLabels(), TTLSeconds: int(s.GetTtlSeconds()), ExpiresAt: moment(s.GetExpiresAt()), Changes: []changeView{}}
	if v.TTLSeconds > 0 {
		v.OnExpiry = word(s.GetOnExpiry(), "EXPIRY_")
	}
	for _, c := range s.GetChanges() {
		v.Changes = append(v.Changes, viewChange(c))
	}
	return v
}

func viewChange(c *pb.Change) changeView {
	return changeView{word(c.GetState(), "STATE_"), c.GetTime().AsTime(), c.GetReason()}
}

// word is the value of an enum, as a person writes it.
func word(value fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// moment is a time that may be absent.
func moment(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

// printJSON prints a value on one line.
func printJSON(w io.Writer, value any) error { return json.NewEncoder(w).Encode(value) }

// clock is a time for a person.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// human is a number of bytes for a person: three digits or four and a unit.
func human(n int64) string {
	units := "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%dB", n)
	}
	value, unit := float64(n), -1
	for value >= 1<<10 && unit < len(units)-1 {
		value, unit = value/(1<<10), unit+1
	}
	if value < 10 {
		return fmt.Sprintf("%.1f%c", value, units[unit])
	}
	return fmt.Sprintf("%.0f%c", value, units[unit])
}
