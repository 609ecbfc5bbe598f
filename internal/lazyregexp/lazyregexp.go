// Package lazyregexp compiles a regular expression when it is first used. A program that links many of them, and of which a process
// runs beside every machine, would else pay for all of them in each.
//
// It is a leaf package.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns what compiles the expression once and returns it then. It panics there when the expression is not valid.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
