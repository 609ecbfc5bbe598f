// Wrenn runs untrusted code in Firecracker microVMs. See `wrenn --help`.
package main

import (
	"os"

	"wrenn.dev/wrenn/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
