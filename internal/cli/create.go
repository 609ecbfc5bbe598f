package cli

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/sandbox"
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
'wrenn rm', or, through an agent or a server, until it was idle for its --ttl: commands, shells, copies and connections are activity.`,
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
	fl.StringVar(&f.ttl, "ttl", "", "how long it may be idle, such as 30m (default: for ever); needs an agent or a server")
	fl.StringVar(&f.onExpiry, "on-expiry", "destroy", "what becomes of it then: destroy or pause; needs an agent or a server")
	fl.StringArrayVar(&f.labels, "label", nil, "a label, NAME=VALUE; may be given again; needs an agent or a server")
	fl.BoolVar(&f.progress, "progress", false, "say on standard error what each step took")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

func runCreate(cmd *cobra.Command, s streams, host *hostFlags, f *createFlags) error {
	spec, err := f.spec()
	if err != nil {
		return err
	}
	w, err := f.wish(spec)
	if err != nil {
		return err
	}
	var made sandboxView
	r, err := findRemote(cmd)
	var none *noAgent
	switch {
	case err == nil:
		defer r.close()
		made, err = createThere(cmd, s, r, w, f)
	case !errors.As(err, &none) || f.ttl != "" || len(f.labels) > 0 || cmd.Flags().Changed("on-expiry"):
		return err
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

// wish reads the flags that only an agent or a server takes.
func (f *createFlags) wish(spec sandbox.Spec) (wish, error) {
	w := wish{Spec: spec, onExpiry: f.onExpiry}
	var err error
	if w.ttl, err = parseDuration("--ttl", f.ttl); err != nil {
		return w, err
	}
	if w.ttl > math.MaxInt32*time.Second || w.ttl > 0 && w.ttl < time.Second {
		return w, errs.Field("--ttl", fmt.Sprintf("%v is out of range", w.ttl), "give 1s to a year, or leave it out")
	}
	w.ttl = w.ttl.Truncate(time.Second)
	if f.onExpiry != "destroy" && f.onExpiry != "pause" {
		return w, errs.Field("--on-expiry", fmt.Sprintf("%q is nothing to do", f.onExpiry), "give destroy or pause")
	}
	for _, label := range f.labels {
		k, v, ok := strings.Cut(label, "=")
		if !ok || k == "" {
			return w, errs.Field("--label", fmt.Sprintf("%q is none", label), "give NAME=VALUE")
		}
		if w.labels == nil {
			w.labels = map[string]string{}
		}
		w.labels[k] = v
	}
	return w, nil
}

func createThere(cmd *cobra.Command, s streams, r remote, w wish, f *createFlags) (sandboxView, error) {
	ctx, _, stop := newStopper(cmd.Context())
	defer stop()
	began := time.Now()
	made, steps, err := r.create(ctx, w)
	if err != nil {
		return sandboxView{}, originMissing(w.Spec, err)
	}
	progress{on: f.progress, w: s.err}.steps(made.ID+" answers", began, steps)
	return made, nil
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
