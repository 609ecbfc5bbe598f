// Package fault makes errors whose text is shown to a client of envd as it is: E2B's SDKs show these texts to people, and some
// programs read them. The kind of error is a value of package errs, apart from the text.
//
// It is a leaf package of envd.
package fault

import "fmt"

// Fault is an error with a kind.
type Fault struct {
	kind error
	text string
}

// New makes a fault of a kind, one of package errs' sentinels. The kind is not repeated in the text.
func New(kind error, format string, args ...any) error {
	return &Fault{kind: kind, text: fmt.Sprintf(format, args...)}
}

// Error is the text for the client.
func (f *Fault) Error() string { return f.text }

// Unwrap makes errors.Is true for the kind.
func (f *Fault) Unwrap() error { return f.kind }
