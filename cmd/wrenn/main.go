// Wrenn runs untrusted code in Firecracker microVMs. See `wrenn --help`.
package main

import (
	"os"

	"wrenn.dev/wrenn/internal/cli"
	"wrenn.dev/wrenn/internal/pager/process"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == process.Command {
		os.Exit(process.Main(os.Args[2:]))
	}
	os.Exit(cli.Main(os.Args[1:]))
}
