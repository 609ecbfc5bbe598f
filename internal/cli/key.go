package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/client"
	"wrenn.dev/wrenn/internal/errs"
)

// keyView is what is known of an API key, and, when it was just made, the key.
type keyView struct {
	Key        string     `json:"key,omitempty"`
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Prefix     string     `json:"prefix"`
	Scopes     []string   `json:"scopes"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
}

func viewKey(k *client.Key) keyView {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	v := keyView{ID: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: []string{}, CreatedAt: k.CreatedAt, ExpiresAt: at(k.ExpiresAt), RevokedAt: at(k.RevokedAt),
		LastUsedAt: at(k.LastUsedAt)}
	for _, s := range k.Scopes {
		v.Scopes = append(v.Scopes, string(s))
	}
	return v
}

// state is whether the key is good, in a word.
func (v keyView) state(now time.Time) string {
	switch {
	case v.RevokedAt != nil:
		return "revoked"
	case v.ExpiresAt != nil && !now.Before(*v.ExpiresAt):
		return "expired"
	}
	return "good"
}

func newKey(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make and revoke a server's API keys"}
	cmd.AddCommand(newKeyCreate(s), newKeyList(s), newKeyRevoke(s))
	return cmd
}

// withServer does what only a server can, until Ctrl-C.
func withServer(cmd *cobra.Command, do func(context.Context, *serverRemote) error) error {
	at, err := chosenServer(cmd)
	if err != nil {
		return err
	}
	if at == nil {
		return fmt.Errorf("'%s' needs a server: name one with --url or WRENN_URL, or store one with 'wrenn login': %w", cmd.CommandPath(), errs.ErrUnavailable)
	}
	r, err := newServerRemote(at)
	if err != nil {
		return err
	}
	defer r.close()
	ctx, _, stop := newStopper(cmd.Context())
	defer stop()
	err = do(ctx, r)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func newKeyCreate(s streams) *cobra.Command {
	var asJSON bool
	var scopes []string
	var expires, role string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an API key and print it, once",
		Long: `Create makes an API key of the same team and prints it on standard output. It is told this once: the server keeps no key.

It needs a server, and a key with the scope admin.`,
		Example: `  wrenn key create ci --scope read --scope write --expires 2160h
  wrenn key create dashboard --role viewer
  wrenn key create laptop | wrenn login --name laptop https://wrenn.example.org`,
		Args: usage(cobra.ExactArgs(1), "give a name for the key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			after, err := parseDuration("--expires", expires)
			if err != nil {
				return err
			}
			o := client.CreateKeyOptions{Name: args[0], Role: client.Role(role)}
			switch {
			case role != "" && cmd.Flags().Changed("scope"):
				return errs.Field("--role", "--scope is given as well", "give one of them")
			case role != "":
				scopes = nil
			}
			for _, scope := range scopes {
				o.Scopes = append(o.Scopes, client.Scope(scope))
			}
			if after > 0 {
				o.ExpiresAt = time.Now().Add(after)
			}
			return withServer(cmd, func(ctx context.Context, r *serverRemote) error {
				secret, key, err := r.c.Keys.Create(ctx, o)
				if err != nil {
					return r.told(err)
				}
				if asJSON {
					v := viewKey(key)
					v.Key = secret
					return printJSON(s.out, v)
				}
				fmt.Fprintf(s.err, "wrenn: %s is told once; 'wrenn key revoke %s' ends it\n", key.Name, key.ID)
				_, err = fmt.Fprintln(s.out, secret)
				return err
			})
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&scopes, "scope", []string{"read", "write"}, "what it is good for: read, write, admin; may be given again")
	fl.StringVar(&role, "role", "", "instead of scopes: viewer, developer, admin or operator")
	fl.StringVar(&expires, "expires", "", "how long it is good, such as 720h (default: for ever)")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newKeyList(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the team's API keys, those that were revoked as well",
		Long: `Ls lists the API keys of the team: how each begins, what it is good for, when it was last used. The keys themselves nobody has.

It needs a server, and a key with the scope admin.`,
		Example: `  wrenn key ls
  wrenn key ls --json | jq -r '.[] | select(.last_used_at == null) | .id'`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, r *serverRemote) error {
				list := []keyView{}
				for k, err := range r.c.Keys.List(ctx) {
					if err != nil {
						return r.told(err)
					}
					list = append(list, viewKey(k))
				}
				if asJSON {
					return printJSON(s.out, list)
				}
				w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "ID\tNAME\tBEGINS\tSCOPES\tSTATE\tEXPIRES\tLAST USED")
				day := func(t *time.Time) string {
					if t == nil {
						return "-"
					}
					return clock(*t)
				}
				for _, v := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, oneWord(v.Name), v.Prefix, strings.Join(slices.Sorted(slices.Values(v.Scopes)), ","),
						v.state(time.Now()), day(v.ExpiresAt), day(v.LastUsedAt))
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newKeyRevoke(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke ID...",
		Short: "Have API keys refused from now on",
		Long: `Revoke ends API keys. They stay in the list.

It needs a server, and a key with the scope admin.`,
		Example: "  wrenn key revoke ky-0123456789abcdefghij",
		Args:    usage(cobra.MinimumNArgs(1), "give the id of a key; 'wrenn key ls' lists them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withServer(cmd, func(ctx context.Context, r *serverRemote) error {
				return each(cmd, args, s, func(id string) error { return r.told(r.c.Keys.Revoke(ctx, id)) })
			})
		},
	}
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}
