package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"wrenn.dev/wrenn/client"
	"wrenn.dev/wrenn/internal/cli/contexts"
	"wrenn.dev/wrenn/internal/errs"
)

const (
	// maxKey bounds what is read as a key, in bytes.
	maxKey = 4 << 10
	// checkTime bounds the question whether a key is good.
	checkTime = 30 * time.Second
)

func newLogin(s streams) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "login [URL]",
		Short: "Store a server and an API key for it, and ask it from then on",
		Long: `Login asks for an API key, checks it at the server, and stores both as a context, a server under a name, which is the current one
from then on: commands ask that server, and 'wrenn context use' chooses another. The key is typed unseen, or read from standard input where that is
no terminal; no flag takes it, because others see a command line.

Contexts are in $XDG_CONFIG_HOME/wrenn/config.json, or in ~/.config/wrenn, for their owner's eyes alone. The URL, if none is given, is
$WRENN_URL or that of 'wrenn up' on this machine.`,
		Example: `  wrenn login https://wrenn.example.org
  wrenn login --name work https://wrenn.example.org < key
  pass wrenn/work | wrenn login --name work https://wrenn.example.org`,
		Args: usage(cobra.MaximumNArgs(1), "give the address of a server, or none"),
		RunE: func(cmd *cobra.Command, args []string) error { return login(cmd, s, name, args) },
	}
	cmd.Flags().StringVar(&name, "name", "", "what the context is called (default: after the server's host)")
	return cmd
}

func login(cmd *cobra.Command, s streams, name string, args []string) error {
	address := env("WRENN_URL", "http://"+defaultListen)
	if given := flagText(cmd, "url"); given != "" {
		address = given
	}
	if len(args) == 1 {
		address = args[0]
	}
	c, err := client.New(address)
	if err != nil {
		return errs.Field("url", fmt.Sprintf("%.200q is no server's address", address), "give one such as https://wrenn.example.org")
	}
	c.Close()
	if name == "" {
		name = nameOf(address)
	}
	if err := contexts.CheckName("--name", name); err != nil {
		return err
	}
	if name == contexts.Local {
		return errs.Field("--name", "local is this machine", "give another name")
	}
	if openToOthers(address) {
		fmt.Fprintf(s.err, "wrenn: %s is asked without TLS: whoever is between here and there sees the key\n", address)
	}
	key, err := readKey(s, address)
	if err != nil {
		return err
	}
	if err := checkKey(cmd.Context(), address, key); err != nil {
		return err
	}
	if err := contexts.Change(func(f *contexts.File) error {
		f.Contexts[name], f.Current = contexts.Server{URL: address, Key: key}, name
		return nil
	}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s is asked from now on, as context %s\n", address, name)
	return err
}

// nameOf is a context's name for an address.
func nameOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.Trim(regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(u.Host, "-"), "-._")
}

// openToOthers says whether a key goes over a network as it is.
func openToOthers(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || !ip.IsLoopback()
}

// readKey asks for a key at a terminal, where it is not shown, or reads it.
func readKey(s streams, address string) (string, error) {
	var line string
	if f, ok := s.in.(*os.File); ok && isTerminal(s.in) {
		fmt.Fprintf(s.err, "API key for %s (it is not shown): ", address)
		raw, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.err)
		if err != nil {
			return "", err
		}
		line = string(raw)
	} else {
		read, err := bufio.NewReaderSize(io.LimitReader(s.in, maxKey+1), maxKey+1).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		line = read
	}
	key := strings.TrimSpace(line)
	if key == "" || len(key) > maxKey {
		return "", errs.Field("key", "there is none", "type it, or give it on standard input")
	}
	return key, nil
}

// checkKey asks the server about a key. One that may not see anything is good for something else.
func checkKey(ctx context.Context, address, key string) error {
	r, err := newServerRemote(&target{contexts.Server{URL: address, Key: key}, "the command line"})
	if err != nil {
		return errs.Field("key", "it has characters that no key has", "give it as it was told")
	}
	defer r.close()
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	_, err = r.c.Templates.List(ctx)
	switch {
	case errors.Is(err, client.ErrPermissionDenied):
		return nil
	case errors.Is(err, client.ErrUnauthenticated):
		return errs.Field("key", "the server does not know it: "+err.Error(), "give one that is good; 'wrenn key create' makes one")
	}
	return r.told(err)
}

func newLogout(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "logout [NAME]",
		Short: "Forget a server and the API key for it",
		Long:  `Logout removes a context, the current one unless it is named. The key stays good: 'wrenn key revoke' ends one.`,
		Example: `  wrenn logout
  wrenn logout work`,
		Args: usage(cobra.MaximumNArgs(1), "give the name of a context, or none"),
		RunE: func(_ *cobra.Command, args []string) error {
			return contexts.Change(func(f *contexts.File) error {
				name := f.Current
				if len(args) == 1 {
					name = args[0]
				}
				if name == "" {
					return errs.Field("context", "none is the current one", "name one; 'wrenn context ls' lists them")
				}
				if err := f.Remove(name); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.out, "%s is forgotten\n", name)
				return err
			})
		},
	}
}

// contextView is a context as it is printed; its key never is.
type contextView struct {
	Name    string `json:"name"`
	URL     string `json:"url,omitempty"`
	Current bool   `json:"current"`
}

func newContext(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Choose which server commands ask, of those that 'wrenn login' stored",
		Long: `A context is a server under a name, with an API key. Commands ask the current one, unless --url, --context, $WRENN_URL or $WRENN_CONTEXT
names another; 'local' is this machine.`,
	}
	cmd.AddCommand(newContextList(s), newContextUse(s), newContextRemove(s), newContextShow(s))
	return cmd
}

func newContextList(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the contexts",
		Example: "  wrenn context ls",
		Args:    usage(cobra.NoArgs, "give none"),
		RunE: func(*cobra.Command, []string) error {
			file, err := contexts.Read()
			if err != nil {
				return err
			}
			list := []contextView{{Name: contexts.Local, Current: file.Current == ""}}
			for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
				list = append(list, contextView{name, file.Contexts[name].URL, file.Current == name})
			}
			if asJSON {
				return printJSON(s.out, list)
			}
			w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "CURRENT\tNAME\tSERVER")
			for _, v := range list {
				where := v.URL
				if where == "" {
					where = "(this machine)"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", map[bool]string{true: "*"}[v.Current], v.Name, where)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newContextUse(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "use NAME",
		Short: "Ask this context's server from now on; 'local' is this machine",
		Example: `  wrenn context use work
  wrenn context use local`,
		Args: usage(cobra.ExactArgs(1), "give the name of a context; 'wrenn context ls' lists them"),
		RunE: func(_ *cobra.Command, args []string) error {
			return contexts.Change(func(f *contexts.File) error {
				f.Current = ""
				if args[0] == contexts.Local {
					_, err := fmt.Fprintln(s.out, "this machine is asked from now on")
					return err
				}
				entry, err := f.Named("context", args[0])
				if err != nil {
					return err
				}
				f.Current = args[0]
				_, err = fmt.Fprintf(s.out, "%s is asked from now on\n", entry.URL)
				return err
			})
		},
	}
}

func newContextRemove(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Forget contexts and their API keys",
		Example: "  wrenn context rm work",
		Args:    usage(cobra.MinimumNArgs(1), "give the name of a context; 'wrenn context ls' lists them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return each(cmd, args, s, func(name string) error {
				return contexts.Change(func(f *contexts.File) error { return f.Remove(name) })
			})
		},
	}
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

func newContextShow(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Tell which server commands ask as things are, and what says so",
		Example: `  wrenn context show
  WRENN_CONTEXT=work wrenn context show`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := chosenServer(cmd)
			switch {
			case err != nil:
				return err
			case at == nil && asJSON:
				return printJSON(s.out, targetView{})
			case at == nil:
				_, err = fmt.Fprintln(s.out, "this machine")
			case asJSON:
				return printJSON(s.out, targetView{at.URL, at.source})
			default:
				_, err = fmt.Fprintf(s.out, "%s, named by %s\n", at.URL, at.source)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// targetView is the server that commands ask; empty is this machine.
type targetView struct {
	URL    string `json:"url,omitempty"`
	Source string `json:"source,omitempty"`
}
