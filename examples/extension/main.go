// A Wrenn with an extension: all of `wrenn`, and a log of what became of each team's sandboxes, kept in the same database.
//
//	go run ./examples/extension up
//	curl -H "Authorization: Bearer $WRENN_API_KEY" "$WRENN_URL/ext/endings/mine"
package main

import (
	"os"

	"wrenn.dev/wrenn"
	"wrenn.dev/wrenn/examples/extension/endings"
)

func main() { os.Exit(wrenn.Main(os.Args[1:], endings.Extension{})) }
