package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/client"
	"wrenn.dev/wrenn/internal/errs"
)

// urlView is how a port of a sandbox is reached.
type urlView struct {
	URL    string `json:"url"`
	Public bool   `json:"public"`
	Token  string `json:"token,omitempty"`
}

func newURL(s streams) *cobra.Command {
	var token, public, asJSON bool
	cmd := &cobra.Command{
		Use:   "url ID PORT",
		Short: "Print the URL of a port of a sandbox",
		Long: `Url prints where a port of a sandbox is reached, whether anything listens there or not. With --token it makes an access token, which opens
all ports of the sandbox, and prints a URL that has it, once for a browser, which then has a cookie; programs send it in the header
Wrenn-Access-Token. With --public everybody who knows the URL may reach all ports of the sandbox from then on.

It needs a server.`,
		Example: `  wrenn url cl-0123456789abcdefghij 8000
  xdg-open "$(wrenn url --token cl-0123456789abcdefghij 8000)"
  wrenn url --token --json cl-0123456789abcdefghij 8000 | jq -r .token`,
		Args: usage(cobra.ExactArgs(2), "give the id of a sandbox and a port"),
		RunE: func(cmd *cobra.Command, args []string) error {
			port, err := strconv.Atoi(args[1])
			switch {
			case err != nil || port < 1 || port > 65535:
				return errs.Field("PORT", fmt.Sprintf("%q is no port", args[1]), "give 1 to 65535")
			case token && public:
				return errs.Field("--token", "--public is given as well, and what is public needs none", "give one of them")
			}
			return withServer(cmd, func(ctx context.Context, r *serverRemote) error {
				v, err := urlOf(ctx, r.c.Sandboxes.Of(args[0]), port, token, public)
				switch {
				case err != nil:
					return r.told(err)
				case asJSON:
					return printJSON(s.out, v)
				}
				_, err = fmt.Fprintln(s.out, v.URL)
				return err
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&token, "token", false, "make an access token and print a URL for a browser that has it")
	fl.BoolVar(&public, "public", false, "open all ports of the sandbox to everybody who knows their URL")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func urlOf(ctx context.Context, sb *client.Sandbox, port int, token, public bool) (urlView, error) {
	if public {
		if _, err := sb.Update(ctx, client.UpdateOptions{Public: new(true)}); err != nil {
			return urlView{}, err
		}
	}
	at, err := sb.Port(ctx, port)
	if err != nil {
		return urlView{}, err
	}
	v := urlView{URL: at.URL, Public: at.Public}
	if !token {
		return v, nil
	}
	u, err := url.Parse(at.URL)
	if err != nil {
		return urlView{}, fmt.Errorf("the server's URL of the port: %w", err)
	}
	if v.Token, err = sb.CreateAccessToken(ctx); err != nil {
		return urlView{}, err
	}
	u.RawQuery = url.Values{"wrenn_access_token": {v.Token}}.Encode()
	v.URL = u.String()
	return v, nil
}
