package docs

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/servertest"
	"wrenn.dev/wrenn/openapi"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// patience is how long a document's commands may take together.
const patience = 2 * time.Minute

// prelude makes a failure of a curl one of its command, wherever in it the curl is, and says what the server said. That its reader has read enough
// (23) is none, and
// neither is an error's status where the document shows it: what is compared is the status then.
const prelude = `
curl() {
	local answer=0 fail=--fail-with-body
	[[ "$*" != *'%{http_code}'* ]] || fail=
	command curl $fail --show-error --max-time 60 "$@" || answer=$?
	case $answer in 0|23) ;; *) echo "curl $answer: $*" >>"$FAILURES" ;; esac
	return $answer
}
`

// noCurl are operations of which a document has no curl, and why.
var noCurl = map[string]string{"openTerminal": "a WebSocket, which docs/api.md has in JavaScript"}

// TestEveryCurl runs them, with one shell for a document. The addresses that they show are the test's.
func TestEveryCurl(t *testing.T) {
	asked := map[string]bool{}
	for _, file := range documents(t) {
		list := steps(t, file)
		if !slices.ContainsFunc(list, func(s step) bool { return s.curl }) {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			w := servertest.New(t, servertest.Config{Guest: servertest.OnThisMachine(t)})
			w.Ports.Open(8000, there(t).Listener.Addr().String())
			for i, out := range run(t, w, list) {
				if len(list[i].want) == 0 && !strings.Contains(list[i].command, "%{http_code}") {
					continue // a document need not show what a command writes
				}
				if problem := fits(list[i].want, out); problem != "" {
					t.Errorf("%v\n%s; it wrote:\n%s", list[i], problem, strings.Join(out, "\n"))
				}
			}
		})
		for _, s := range list {
			for _, name := range operations(t, s.command) {
				asked[name] = true
			}
		}
	}
	if len(asked) == 0 {
		t.Fatal("no document shows a curl of the API: the test does not see them")
	}
	// A reader finds an example of every operation.
	doc, err := contract.Load(openapi.JSON)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range doc.Operations {
		if !asked[op.ID] && noCurl[op.ID] == "" {
			t.Errorf("no document has an example of %s", op.ID)
		}
	}
}

// there is a server that takes everything: the one in a sandbox, and the one that webhooks lead to.
func there(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	return s
}

// run runs a document's commands and returns the lines that each wrote.
func run(t *testing.T, w *servertest.World, list []step) [][]string {
	t.Helper()
	dir := t.TempDir()
	failures := filepath.Join(dir, "failures")
	script := prelude
	addresses := strings.NewReplacer("/run/wrenn/agent.sock", w.Socket, "https://example.com/wrenn", there(t).URL)
	const mark = "-- this is the end of a command --"
	for _, s := range list {
		script += addresses.Replace(s.command) + "\n" +
			fmt.Sprintf("code=$?; [ $code = 0 ] || echo \"it ended with $code\" >>$FAILURES; echo; echo '%s'; [ ! -e $FAILURES ] || exit 1\n", mark)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-uc", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "WRENN_URL="+w.URL, "WRENN_API_KEY="+w.Key, "FAILURES="+failures)
	// A curl of a stream whose reader has gone sees it when the server says more: it ends with the shell.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, problems := filepath.Join(dir, "out"), filepath.Join(dir, "problems")
	cmd.Stdout, cmd.Stderr = create(t, out), create(t, problems)
	err := cmd.Run()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // or all have ended
	parts := strings.Split(read(t, out), mark+"\n")
	if failed, _ := os.ReadFile(failures); err != nil || len(failed) > 0 || len(parts) != len(list)+1 {
		last := max(0, min(len(parts)-2, len(list)-1))
		t.Fatalf("%v\n%v (%v)\n%s%s%s", list[last], err, ctx.Err(), failed, read(t, problems), parts[last])
	}
	written := make([][]string, len(list))
	for i := range list {
		written[i] = slices.DeleteFunc(strings.Split(parts[i], "\n"), func(line string) bool { return line == "" })
	}
	return written
}

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	isMethod = regexp.MustCompile(`-X (\w+)`)
	isPath   = regexp.MustCompile(`\$WRENN_URL(/[^\s"'?|)]*)`)
)

// operations are those that a command asks for. What stands for an id in it is a variable.
func operations(t *testing.T, command string) []string {
	t.Helper()
	doc, err := contract.Load(openapi.JSON)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for pattern, op := range doc.Operations {
		method, path, _ := strings.Cut(pattern, " ")
		like := regexp.MustCompile("^" + regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$")
		asks := "GET"
		if m := isMethod.FindStringSubmatch(command); m != nil {
			asks = m[1]
		} else if strings.Contains(command, "--json") {
			asks = "POST"
		} else if strings.Contains(command, " -T ") {
			asks = "PUT"
		}
		for _, m := range isPath.FindAllStringSubmatch(command, -1) {
			if like.MatchString(m[1]) && asks == method {
				list = append(list, op.ID)
			}
		}
	}
	return list
}
