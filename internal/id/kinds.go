package id

// The prefixes of what else has an id, beside sandboxes.
const (
	Team     = "tm-"
	Key      = "ky-"
	Host     = "ho-"
	Snapshot = "sn-"
	Webhook  = "wh-"
	// Delivery is one message to a webhook.
	Delivery = "wd-"
	// Holder is who has a lease.
	Holder    = "lh-"
	JoinToken = "jt-"
	// Operation names one attempt at a change.
	Operation = "op-"
)
