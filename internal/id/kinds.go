package id

// The prefixes of what else has an id, beside sandboxes.
const (
	Team     = "tm-"
	Key      = "ky-"
	Host     = "ho-"
	Snapshot = "sn-"
	// Operation names one attempt at a change.
	Operation = "op-"
)
