// Wrenn runs untrusted code in Firecracker microVMs. See `wrenn --help`.
package main

import (
	"os"

	"wrenn.dev/wrenn"
)

func main() { os.Exit(wrenn.Main(os.Args[1:])) }
