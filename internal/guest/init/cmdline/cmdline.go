// Package cmdline reads what wrenn-init wants to know from the kernel's command line.
//
//	root=/dev/vda            the root file system's device; ext4
//	ro | rw                  how it is mounted; the last one counts, without one it is rw
//	wrenn.modules=/dev/vdb   the device with the kernel's modules; "none" for none
//	wrenn.metadata=off       there is no metadata service; without this, start waits for it
//
// It is a leaf package.
package cmdline

import (
	"fmt"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// Args are the parameters that are wrenn-init's.
type Args struct {
	Root     string // device path
	ReadOnly bool
	Modules  string // device path, "" for none
	Metadata bool
}

// isDevice tells whether a path is that of a device right below /dev. (A regular expression would have to be compiled at each
// boot.)
func isDevice(path string) bool {
	name, ok := strings.CutPrefix(path, "/dev/")
	return ok && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == "" && name[0] >= 'a'
}

// Parse reads a command line as /proc/cmdline has it. Parameters of others are passed over, and so is all after "--", which is
// for init. It fails with errs.ErrInvalid for a value that can't be.
func Parse(line string) (Args, error) {
	a := Args{Root: "/dev/vda", Modules: "/dev/vdb", Metadata: true}
	for _, word := range words(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "--":
			return a, nil
		case "ro", "rw":
			a.ReadOnly = key == "ro"
		case "root":
			if !isDevice(value) {
				return Args{}, fmt.Errorf("kernel command line: root=%.60q is no device: %w", value, errs.ErrInvalid)
			}
			a.Root = value
		case "wrenn.modules":
			if value != "none" && !isDevice(value) {
				return Args{}, fmt.Errorf("kernel command line: wrenn.modules=%.60q is no device: %w", value, errs.ErrInvalid)
			}
			a.Modules = strings.TrimPrefix(value, "none")
		case "wrenn.metadata":
			if value != "off" && value != "on" {
				return Args{}, fmt.Errorf("kernel command line: wrenn.metadata=%.60q: want on or off: %w", value, errs.ErrInvalid)
			}
			a.Metadata = value == "on"
		}
	}
	return a, nil
}

// words splits at white space outside double quotes, as the kernel does, and drops the quotes.
func words(line string) []string {
	quoted := false
	fields := strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
	for i, f := range fields {
		fields[i] = strings.ReplaceAll(f, `"`, "")
	}
	return fields
}
