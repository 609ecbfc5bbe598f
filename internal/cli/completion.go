package cli

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// completer says what an argument may be, given those before it. A shell asks at each press of the key: it is quick, and silent when
// nothing is known.
type completer func(r remote, cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completers are those of the commands, by their paths; a command that is not here takes no argument that could be completed.
var completers = map[string]completer{
	"exec": first(running), "shell": first(running), "pause": first(running), "fork": first(running), "snapshot create": first(running),
	"resume": first(inState("paused")), "get": first(anySandbox), "logs": first(anySandbox), "events": first(anySandbox),
	"rm": anySandbox, "stats": running, "snapshot rm": anySnapshot, "cp": paths,
}

// flagCompleters are those of flags.
var flagCompleters = map[string]completer{
	"run --snapshot": anySnapshot, "create --snapshot": anySnapshot, "create --on-expiry": words("destroy", "pause"),
	"logs --only": words("console", "vmm"), "host check --require": words(requireRun), "agent --log-format": words("text", "json"),
}

const noFiles = cobra.ShellCompDirectiveNoFileComp

// completeTime bounds what one press of the key may take.
const completeTime = 2 * time.Second

// completion tells the commands what their arguments may be.
func completion(root *cobra.Command) {
	for where, what := range completers {
		mustFind(root, where).ValidArgsFunction = what.function
	}
	for where, what := range flagCompleters {
		name, flag, _ := strings.Cut(where, " --")
		if err := mustFind(root, name).RegisterFlagCompletionFunc(flag, what.function); err != nil {
			panic("cli: " + err.Error())
		}
	}
}

func mustFind(root *cobra.Command, where string) *cobra.Command {
	cmd, rest, err := root.Find(strings.Fields(where))
	if err != nil || len(rest) > 0 {
		panic("cli: no command " + where)
	}
	return cmd
}

// function asks who has the sandboxes, if somebody does.
func (f completer) function(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	cmd.SetContext(ctx)
	r, err := findRemote(cmd)
	if err != nil {
		return f(nil, cmd, args, begun)
	}
	defer r.close()
	return f(r, cmd, args, begun)
}

// first completes the first argument alone.
func first(f completer) completer {
	return func(r remote, cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return f(r, cmd, args, begun)
	}
}

func words(list ...string) completer {
	return func(remote, *cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return list, noFiles
	}
}

var (
	anySandbox = inState()
	running    = inState("running")
)

// inState completes ids of sandboxes, with what they are beside them; no states are all. Ids that are given already are not offered.
func inState(states ...string) completer {
	return func(r remote, cmd *cobra.Command, args []string, begun string) (list []string, _ cobra.ShellCompDirective) {
		if r == nil {
			return nil, noFiles
		}
		known, _ := collect(nil, r.list(cmd.Context())) // as far as it came
		for _, v := range known {
			if strings.HasPrefix(v.ID, begun) && !slices.Contains(args, v.ID) && (len(states) == 0 || slices.Contains(states, v.State)) {
				list = append(list, v.ID+"\t"+v.State+" from "+v.origin())
			}
		}
		return list, noFiles
	}
}

func anySnapshot(r remote, cmd *cobra.Command, args []string, begun string) (list []string, _ cobra.ShellCompDirective) {
	if r == nil {
		return nil, noFiles
	}
	known, _ := collect(nil, r.snapshots(cmd.Context()))
	for _, v := range known {
		if strings.HasPrefix(v.Name, begun) && !slices.Contains(args, v.Name) {
			list = append(list, v.Name)
		}
	}
	return list, noFiles
}

// paths completes the paths of 'wrenn cp': ids with a colon, then what is in the sandbox. All others are this machine's.
func paths(r remote, cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if r == nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	at, inGuest := place(begun)
	if !inGuest {
		if !strings.HasPrefix(begun, "cl-") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		list, _ := running(r, cmd, args, begun)
		for i, one := range list {
			name, what, _ := strings.Cut(one, "\t")
			list[i] = name + ":\t" + what
		}
		return list, cobra.ShellCompDirectiveNoSpace
	}
	dir, name := path.Split(strings.TrimPrefix(begun, at.id+":"))
	folder := dir
	if folder == "" {
		folder = "."
	}
	user, _ := cmd.Flags().GetString("user")
	entries, err := r.files(at.id, user).List(cmd.Context(), folder)
	if err != nil {
		return nil, noFiles
	}
	var list []string
	for _, e := range entries {
		if e.GetInexact() || !strings.HasPrefix(e.GetName(), name) {
			continue
		}
		entry := at.id + ":" + dir + e.GetName()
		if e.GetType() == pb.FileType_FILE_TYPE_DIRECTORY {
			entry += "/"
		}
		list = append(list, entry)
	}
	return list, noFiles | cobra.ShellCompDirectiveNoSpace
}
