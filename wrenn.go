// Package wrenn is the program `wrenn`, for builds that add extensions to it.
//
//	func main() { os.Exit(wrenn.Main(os.Args[1:], mine.Extension{})) }
package wrenn

import (
	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/cli"
	"wrenn.dev/wrenn/internal/pager/process"
)

// Main runs the command line with what the extensions add to a server, and returns the process's exit code. It is all of main: the agent starts the
// program again for each sandbox's pager.
func Main(args []string, extensions ...extension.Extension) int {
	if len(args) > 0 && args[0] == process.Command {
		return process.Main(args[1:])
	}
	return cli.Main(args, extensions...)
}
