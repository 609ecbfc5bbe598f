package id

// The prefixes of what has an id. Prefix is a sandbox's.
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
	// Template is followed by what follows from the template's content.
	Template = "tp-"
	// Operation names one attempt at a change, Request one request of the REST API.
	Operation = "op-"
	Request   = "rq-"
)
