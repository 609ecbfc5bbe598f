package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/emulated"
	"wrenn.dev/wrenn/test/kvmhost/standing"
)

const defaultName = "default"

func nameArg(args []string) string {
	if len(args) == 0 {
		return defaultName
	}
	return args[0]
}

func newUp() *cobra.Command {
	var flags hostFlags
	cmd := &cobra.Command{
		Use:   "up [NAME]",
		Short: "Boot a host that stays up for a series of commands",
		Long: `Up boots a host that stays up, under a name, until 'down'. 'exec' and 'shell' work in it. If its machine dies, the next of
them says so, with the end of its console.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return startServer(ctx, nameArg(args), &flags)
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

// readyLine is what the process that keeps a host up prints when the host can be used. Before it come messages for people.
const readyLine = "ready"

// startServer starts this program again as the process that keeps a host up, and returns when the host can be used.
func startServer(ctx context.Context, name string, flags *hostFlags) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	server := exec.Command(self, append([]string{"serve", name}, flags.args()...)...)
	server.Stderr = os.Stderr
	server.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Process.Signal(syscall.SIGTERM) })
	defer stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == readyLine {
			fmt.Fprintf(os.Stderr, "kvmhost: host %q is up; 'kvmhost exec %s -- CMD', 'kvmhost shell %s', 'kvmhost down %s'\n", name, name, name, name)
			return nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	if err := server.Wait(); err != nil {
		return exitCode(server.ProcessState.ExitCode()) // it has said why
	}
	return errors.Join(ctx.Err(), errors.New("the process that keeps the host up ended"))
}

// newServe is the process behind 'up'.
func newServe() *cobra.Command {
	var flags hostFlags
	cmd := &cobra.Command{
		Use:    "serve NAME",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return serve(ctx, args[0], &flags)
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

// serve keeps a host up. Its stdout is a pipe to the process that waits for the host; afterwards nobody listens.
func serve(ctx context.Context, name string, flags *hostFlags) error {
	began := time.Now()
	o, err := flags.options(os.Stdout)
	if err != nil {
		return err
	}
	start := func(ctx context.Context) (standing.Host, error) {
		fmt.Println("kvmhost: boot the emulated KVM host")
		h, err := emulated.Boot(ctx, o)
		if err != nil {
			return nil, err
		}
		return h, nil
	}
	notes := fmt.Sprintf("memory %s, bin %q, images %q, forwards %v", flags.memory, flags.bin, flags.images, flags.forwards)
	err = standing.Serve(ctx, name, notes, start, func() {
		fmt.Printf("kvmhost: boot the emulated KVM host: %.1f s\n%s\n", time.Since(began).Seconds(), readyLine)
		silence()
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// silence leaves the terminal and the pipe of the process that started this one.
func silence() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return
	}
	for fd := range 3 {
		_ = syscall.Dup2(int(null.Fd()), fd)
	}
}

func newDown() *cobra.Command {
	return &cobra.Command{
		Use:   "down [NAME]",
		Short: "End a host that stays up",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return standing.Down(ctx, nameArg(args))
		},
	}
}

func newList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the hosts that are up",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list, err := standing.List()
			if err != nil {
				return err
			}
			return printList(os.Stdout, list)
		},
	}
}

func printList(out io.Writer, list []standing.Info) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "no host is up")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tPID\tWITH")
	for _, i := range list {
		fmt.Fprintf(w, "%s\t%d\t%s\n", i.Name, i.Pid, i.Notes)
	}
	return w.Flush()
}

// splitName takes the optional NAME from in front of "--".
func splitName(cmd *cobra.Command, args []string) (name string, command []string, err error) {
	dash := cmd.ArgsLenAtDash()
	switch dash {
	case 0:
		name, command = defaultName, args
	case 1:
		name, command = args[0], args[1:]
	default:
		return "", nil, errs.Field("COMMAND", fmt.Sprintf("no \"--\" in front of it in %q", strings.Join(args, " ")), "give [NAME] -- COMMAND")
	}
	return name, command, needCommand(cmd, command)
}
