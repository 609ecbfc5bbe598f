package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"wrenn.dev/wrenn/internal/cli/transfer"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

// copyFlags are what `wrenn cp` takes.
type copyFlags struct {
	user, limit   string
	asJSON, quiet bool
}

func newCopy(s streams) *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files and folders between this machine and a sandbox",
		Long: `Cp copies a file, or a folder with all that is in it. One of the two is ID:PATH, a path in a sandbox that runs: absolute, or
relative to its user's home. The other is a path here, or - for standard input or output.

Into a folder that is there, it copies under the source's own name; a source that ends in /. is what is in a folder. A file that is
there is replaced, once the new one is whole. Permission bits of files are kept, as far as the umask allows here; symbolic links and
special files in a folder are left out, and named on standard error.

The sandbox is not trusted: whatever it lists, nothing is made but below the destination, and no more is taken than --limit.

It needs an agent or a server.`,
		Example: `  wrenn cp ./project cl-0123456789abcdefghij:              to project in the home of the guest's user
  wrenn cp cl-0123456789abcdefghij:/tmp/out ./results
  wrenn cp cl-0123456789abcdefghij:/etc/os-release -       to standard output
  tar c . | wrenn cp - cl-0123456789abcdefghij:all.tar
  wrenn cp --user root app.conf cl-0123456789abcdefghij:/etc/app.conf`,
		Args: usage(cobra.ExactArgs(2), "give a source and a destination, one of them as ID:PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			limit, err := parseSize("--limit", f.limit)
			if err != nil {
				return err
			}
			j, err := f.job(s, args[0], args[1])
			if err != nil {
				return err
			}
			j.limit = limit
			return withRemote(cmd, j.run)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.user, "user", "", "as this user of the guest, to whom new files belong (default: user)")
	fl.StringVar(&f.limit, "limit", "", "most to take from a sandbox, such as 2G (default: the size of its disk)")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

// copyJob is one copy.
type copyJob struct {
	*copyFlags
	s                 streams
	sandbox           string
	there, here       string
	toGuest, standard bool
	limit             int64
	meter             *meter
}

// job reads the two paths.
func (f *copyFlags) job(s streams, from, to string) (*copyJob, error) {
	j := &copyJob{copyFlags: f, s: s}
	source, inSource := place(from)
	destination, inDestination := place(to)
	switch {
	case inSource && inDestination:
		return nil, errs.Field("arguments", "both are in sandboxes", "copy through this machine: wrenn cp A:FILE - | wrenn cp - B:FILE")
	case !inSource && !inDestination:
		return nil, errs.Field("arguments", "neither is in a sandbox", "give one of them as ID:PATH; 'wrenn ls' lists the ids")
	case inSource:
		j.sandbox, j.there, j.here = source.id, source.path, to
	default:
		j.sandbox, j.there, j.here, j.toGuest = destination.id, destination.path, from, true
	}
	if j.standard = j.here == "-"; j.standard && j.asJSON && !j.toGuest {
		return nil, errs.Field("--json", "standard output is the file's", "leave it out, or copy to a file")
	}
	if j.here == "" {
		return nil, errs.Field("arguments", "the path here is empty", "give . for this folder")
	}
	return j, nil
}

// guestPath is a path in a sandbox.
type guestPath struct{ id, path string }

// place reads ID:PATH. An empty path is the home.
func place(arg string) (guestPath, bool) {
	sandbox, path, ok := strings.Cut(arg, ":")
	if _, err := id.Parse(sandbox); !ok || err != nil {
		return guestPath{}, false
	}
	if path == "" {
		path = "."
	}
	return guestPath{sandbox, path}, true
}

func (j *copyJob) run(ctx context.Context, r remote) error {
	if j.limit == 0 && !j.toGuest {
		sb, err := r.get(ctx, j.sandbox)
		if err != nil {
			return err
		}
		j.limit = sb.DiskBytes
	}
	options := transfer.Options{Bytes: j.limit}
	if !j.quiet && isTerminalOut(j.s.err) {
		j.meter = &meter{w: j.s.err, began: time.Now()}
		options.Moved = j.meter.moved
	}
	result, err := j.copy(ctx, r.files(j.sandbox, j.user), options)
	j.meter.done()
	for _, skipped := range result.Skipped {
		fmt.Fprintf(j.s.err, "wrenn: left out %q: %s\n", skipped.Path, skipped.Reason)
	}
	switch {
	case errors.Is(err, errs.ErrUnauthenticated):
		return errs.Field("--user", err.Error(), "give a user that the sandbox has")
	case err != nil && !j.toGuest && errors.Is(err, errs.ErrResourceExhausted):
		return fmt.Errorf("%w (--limit takes more)", err)
	case err != nil:
		return err
	case j.asJSON:
		return printJSON(j.s.out, result)
	}
	return nil
}

func (j *copyJob) copy(ctx context.Context, g transfer.Guest, o transfer.Options) (transfer.Result, error) {
	switch {
	case j.toGuest && j.standard:
		return transfer.Store(ctx, g, j.s.in, j.there, o)
	case j.toGuest:
		return transfer.Upload(ctx, g, j.here, j.there, o)
	case j.standard:
		return transfer.Content(ctx, g, j.there, j.s.out, o)
	}
	return transfer.Download(ctx, g, j.there, j.here, o)
}

func isTerminalOut(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// meterEvery is how often the meter is drawn.
const meterEvery = 100 * time.Millisecond

// meter draws what was copied, on one line of a terminal.
type meter struct {
	w           io.Writer
	began, last time.Time
	path        string
	bytes       int64 // of all files
	file        int64 // of this one
}

// moved implements transfer.Options.Moved.
func (m *meter) moved(path string, n int, size int64) {
	if path != m.path {
		m.path, m.file = path, 0
	}
	m.bytes, m.file = m.bytes+int64(n), m.file+int64(n)
	if time.Since(m.last) < meterEvery {
		return
	}
	m.last = time.Now()
	share := ""
	if size > 0 {
		share = fmt.Sprintf(" %3d%%", min(100, 100*m.file/size))
	}
	rate := int64(float64(m.bytes) / max(time.Since(m.began).Seconds(), 0.001))
	fmt.Fprintf(m.w, "\r\x1b[K%s  %s/s  %.60q%s", human(m.bytes), human(rate), path, share)
}

// done takes the line away. A nil meter has drawn none.
func (m *meter) done() {
	if m != nil && !m.last.IsZero() {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}
