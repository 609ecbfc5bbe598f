package cli

import (
	"fmt"
	"math"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/sandbox"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// createFlags are what `wrenn create` takes.
type createFlags struct {
	specFlags
	ttl, onExpiry    string
	labels           []string
	progress, asJSON bool
}

func newCreate(s streams, host *hostFlags) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Start a sandbox and leave it running; print its id",
		Long: `Create starts a sandbox from a template or a snapshot and prints its id as soon as its guest answers. It runs until
'wrenn rm', or, through an agent, until it was idle for its --ttl: commands, shells, copies and connections are activity.`,
		Example: `  id=$(wrenn create)                               from the template 'base'
  wrenn exec $id -- python3 --version
  wrenn rm $id
  wrenn create --snapshot ready --no-internet      where a snapshot was taken
  wrenn create --ttl 30m --on-expiry pause --label owner=ann`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runCreate(cmd, s, host, &f) },
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.ttl, "ttl", "", "how long it may be idle, such as 30m (default: for ever); needs an agent")
	fl.StringVar(&f.onExpiry, "on-expiry", "destroy", "what becomes of it then: destroy or pause; needs an agent")
	fl.StringArrayVar(&f.labels, "label", nil, "a label, NAME=VALUE; may be given again; needs an agent")
	fl.BoolVar(&f.progress, "progress", false, "say on standard error what each step took")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

func runCreate(cmd *cobra.Command, s streams, host *hostFlags, f *createFlags) error {
	spec, err := f.spec()
	if err != nil {
		return err
	}
	req, err := f.request(spec)
	if err != nil {
		return err
	}
	c, none := findAgent(cmd)
	var made sandboxView
	switch {
	case none == nil:
		defer c.Close()
		made, err = createThere(cmd, s, c, spec, req, f)
	case f.ttl != "" || len(f.labels) > 0 || cmd.Flags().Changed("on-expiry"):
		return none
	default:
		made, err = createHere(cmd, s, host, spec, f)
	}
	switch {
	case err != nil:
		return err
	case f.asJSON:
		return printJSON(s.out, made)
	}
	_, err = fmt.Fprintln(s.out, made.ID)
	return err
}

// request reads the flags that are the agent's.
func (f *createFlags) request(spec sandbox.Spec) (*pb.CreateRequest, error) {
	req := createRequest(spec)
	ttl, err := parseDuration("--ttl", f.ttl)
	if err != nil {
		return nil, err
	}
	if ttl > math.MaxInt32*time.Second || ttl > 0 && ttl < time.Second {
		return nil, errs.Field("--ttl", fmt.Sprintf("%v is out of range", ttl), "give 1s to a year, or leave it out")
	}
	req.TtlSeconds = uint32(ttl.Seconds())
	switch f.onExpiry {
	case "destroy":
		req.OnExpiry = pb.Expiry_EXPIRY_DESTROY
	case "pause":
		req.OnExpiry = pb.Expiry_EXPIRY_PAUSE
	default:
		return nil, errs.Field("--on-expiry", fmt.Sprintf("%q is nothing to do", f.onExpiry), "give destroy or pause")
	}
	for _, label := range f.labels {
		k, v, ok := strings.Cut(label, "=")
		if !ok || k == "" {
			return nil, errs.Field("--label", fmt.Sprintf("%q is none", label), "give NAME=VALUE")
		}
		if req.Labels == nil {
			req.Labels = map[string]string{}
		}
		req.Labels[k] = v
	}
	return req, nil
}

func createThere(cmd *cobra.Command, s streams, c *client.Client, spec sandbox.Spec, req *pb.CreateRequest, f *createFlags) (sandboxView, error) {
	ctx, _, stop := newStopper(cmd.Context())
	defer stop()
	began := time.Now()
	resp, err := c.Sandboxes.Create(ctx, connect.NewRequest(req))
	if err != nil {
		return sandboxView{}, originMissing(spec, err)
	}
	progress{on: f.progress, w: s.err}.phases(resp.Msg.GetSandbox().GetId()+" answers", began, resp.Msg.GetPhases())
	return viewSandbox(resp.Msg.GetSandbox()), nil
}

func createHere(cmd *cobra.Command, s streams, host *hostFlags, spec sandbox.Spec, f *createFlags) (sandboxView, error) {
	ctx, _, stop := newStopper(cmd.Context())
	defer stop()
	parts, err := host.ready()
	if err != nil {
		return sandboxView{}, err
	}
	spec.Keep = true
	if err := parts.Manager.Check(ctx, &spec); err != nil {
		return sandboxView{}, originMissing(spec, err)
	}
	sb, err := create(ctx, parts, spec, progress{on: f.progress, w: s.err})
	if err != nil {
		return sandboxView{}, err
	}
	sb.Leave()
	r, err := parts.Manager.Get(sb.ID)
	return viewRecord(r), err
}
