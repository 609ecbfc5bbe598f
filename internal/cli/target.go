package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/cli/contexts"
	"wrenn.dev/wrenn/internal/errs"
)

// targetFlags are the flags by which every command is told of a server.
type targetFlags struct{ url, context string }

func (t *targetFlags) register(root *cobra.Command) {
	fl := root.PersistentFlags()
	fl.StringVar(&t.url, "url", "", "ask the server at this address, with the API key in $WRENN_API_KEY ($WRENN_URL)")
	fl.StringVar(&t.context, "context", "", "ask the server of this context, or 'local' for this machine ($WRENN_CONTEXT)")
}

// target is a server that was chosen, and what named it.
type target struct {
	contexts.Server
	source string
}

// chosenServer is the server that a command is for; nil is this machine. What is nearer counts: flags before the environment, that before
// the stored context, and of each the address before a context's name. Flags of this machine's, and the environment's word of its agent,
// come before what is stored.
func chosenServer(cmd *cobra.Command) (*target, error) {
	url, name := flagText(cmd, "url"), flagText(cmd, "context")
	here := hereFlag(cmd)
	switch {
	case url != "" && name != "":
		return nil, errs.Field("--url", "--context is given as well", "give one of them")
	case here != "" && (url != "" || name != "" && name != contexts.Local):
		return nil, errs.Field("--"+here, "it is for the work on this machine, and a server is named as well", "leave one of them out")
	case here != "":
		return nil, nil
	case url != "":
		return serverAt("--url", url)
	case name != "":
		return serverNamed("--context", name)
	}
	if url := os.Getenv("WRENN_URL"); url != "" {
		return serverAt("WRENN_URL", url)
	}
	if name := os.Getenv("WRENN_CONTEXT"); name != "" {
		return serverNamed("WRENN_CONTEXT", name)
	}
	if os.Getenv("WRENN_AGENT_SOCKET") != "" || os.Getenv("WRENN_STATE_DIR") != "" {
		return nil, nil
	}
	file, err := contexts.Read()
	if err != nil || file.Current == "" {
		return nil, err
	}
	entry, err := file.Named("context", file.Current)
	if err != nil {
		return nil, err
	}
	return &target{entry, fmt.Sprintf("context %q", file.Current)}, nil
}

func flagText(cmd *cobra.Command, name string) string {
	if f := cmd.Flag(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// serverNamed is the server of a context.
func serverNamed(field, name string) (*target, error) {
	if name == contexts.Local {
		return nil, nil
	}
	file, err := contexts.Read()
	if err != nil {
		return nil, err
	}
	entry, err := file.Named(field, name)
	if err != nil {
		return nil, err
	}
	return &target{entry, fmt.Sprintf("context %q", name)}, nil
}

// serverAt is the server at an address, with the key of the environment or of the context that has the same address.
func serverAt(field, url string) (*target, error) {
	if key := os.Getenv("WRENN_API_KEY"); key != "" {
		return &target{contexts.Server{URL: url, Key: key}, field}, nil
	}
	file, err := contexts.Read()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
		if entry := file.Contexts[name]; sameAddress(entry.URL, url) {
			return &target{contexts.Server{URL: url, Key: entry.Key}, field}, nil
		}
	}
	return nil, errs.Field("WRENN_API_KEY", "it is not set, and no context has the address "+url, "set it, or store a key with 'wrenn login'")
}

func sameAddress(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }
