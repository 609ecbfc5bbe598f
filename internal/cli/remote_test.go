package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/server/servertest"
)

// ways are how the same commands reach the same host: through its agent, or through a server before it.
var ways = map[string]func(*testing.T, *servertest.World){
	"agent": func(t *testing.T, w *servertest.World) { t.Setenv("WRENN_AGENT_SOCKET", w.Socket) },
	"server": func(t *testing.T, w *servertest.World) {
		t.Setenv("WRENN_URL", w.URL)
		t.Setenv("WRENN_API_KEY", w.Key)
	},
}

// newWorld is a server and an agent with a real guest, whose commands are this machine's.
func newWorld(t *testing.T) *servertest.World {
	t.Helper()
	return servertest.New(t, servertest.Config{Guest: servertest.OnThisMachine(t)})
}

// heard is what a command said.
type heard struct {
	code     int
	out, err string
}

// sameOnly leaves of what is said what does not depend on when and to whom.
func sameOnly(text string) string {
	for _, r := range []struct{ pattern, with string }{
		{`cl-[0-9a-z]{20}`, "cl-ID"}, {`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`, "TIME"}, {`\d{4}-\d\d-\d\dT[0-9:.]+Z`, "TIME"},
		{`after [0-9.]+m?s`, "after TOOK"}, {` +[0-9.]+s\n`, " TOOK\n"}, {`(?m)^ +(\S+ )+TOOK\n`, ""}, {`"id":"[0-9.]+"`, `"id":"N"`}, {`(?m)^[0-9.]{3,}  TIME`, "N  TIME"},
		{`"reason":"[^"]*"`, `"reason":"WHY"`}, {`"error":"(\\.|[^"\\])*"`, `"error":"WHY"`}, {`(?m)^expires .*\n`, ""}, {`"expires_at":"[^"]*",`, ""}, {`(?m)(running|paused|starting|stopping|stopped|pausing|resuming): .*$`, "$1: WHY"}, {`(?m)^ +TIME  .*\n`, ""}, {`history .*\n`, ""},
		{`"changes":\[.*?\]`, `"changes":[]`}, {`"(build|sandbox|template|created_at)":"[^"]*",?`, ""}, {`,?}`, "}"}, {`bd-[0-9a-z]{20}`, "-"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return text
}

// inOrder is a list in an order that does not depend on ids or times: the agent lists by id, a server the newest first.
func inOrder(line, out string) string {
	if !strings.HasPrefix(line, "ls") {
		return out
	}
	items := strings.SplitAfter(strings.NewReplacer("},{", "}\n{", "[{", "[\n{", "}]", "}\n]").Replace(out), "\n")
	slices.Sort(items)
	return strings.Join(items, "")
}

// life is a sandbox's, in commands; ID is the sandbox's, FORK and DIR those that the life has itself.
func life(dir string) []struct{ stdin, line string } {
	return []struct{ stdin, line string }{
		{"", "create --ttl 30m --on-expiry pause --label owner=ann --no-internet --progress"}, {"", "create --json"}, {"", "get ID"}, {"", "get --json ID"},
		{"", "ls -q"}, {"", "ls"}, {"", "template ls"}, {"", "template ls --json"},
		{"", "exec ID -- sh -c 'echo out; echo err >&2; exit 3'"}, {"typed\n", "exec -i --env A=1 --cwd / ID -- sh -c 'pwd; echo $A; cat'"},
		{"", "exec --timeout 100ms ID -- sleep 10"}, {"", "exec ID -- sh -c 'kill -9 $$'"}, {"", "exec --user nobody-here ID -- true"}, {"", "exec ID -- /none"},
		{"", "exec --cwd /none ID -- true"}, {"echo from a shell; exit 4", "shell ID"}, {"", "exec --progress ID -- true"},
		{"", "cp --json " + dir + "/in ID:copied"}, {"", "cp ID:copied/file -"}, {"more", "cp - ID:more"}, {"", "exec ID -- cat more copied/file"},
		{"", "cp --json ID:copied " + dir + "/out-WAY"}, {"", "cp ID:none " + dir}, {"", "cp --user nobody-here ID:more -"}, {"", "cp --limit 1K ID:copied/long " + dir + "/long"},
		{"", "fork ID"}, {"", "fork --count 2 --json --progress ID"}, {"", "fork --count 101 ID"},
		{"", "snapshot create --progress ID WAY"}, {"", "snapshot create ID WAY"}, {"", "snapshot create ID /"}, {"", "run --snapshot WAY -- echo in it"}, {"", "run --progress -- echo in it"},
		{"", "create --json --snapshot WAY"}, {"", "snapshot rm WAY"}, {"", "snapshot rm --json none"}, {"", "snapshot ls --json"},
		{"", "pause ID"}, {"", "pause ID"}, {"", "exec ID -- true"}, {"", "cp ID:more -"}, {"", "ls --json"}, {"", "resume --progress ID"}, {"", "resume ID"},
		{"", "create --template none"}, {"", "create --snapshot none"}, {"", "create --memory 1M"}, {"", "create --disk 1M"}, {"", "create --vcpus 1000"}, {"", "create --label =x"},
		{"", "get cl-0123456789abcdefghij"}, {"", "get x"}, {"", "rm x"}, {"", "exec cl-0123456789abcdefghij -- true"}, {"", "pause cl-0123456789abcdefghij"},
		{"", "rm --json ID cl-0123456789abcdefghij"}, {"", "rm ID"}, {"", "events --past --no-follow ID"}, {"", "events --past --no-follow --json ID"},
		{"", "events --after x"}, {"", "events --no-follow"},
	}
}

// split splits a line as a shell does that knows single quotes alone.
func split(line string) (list []string) {
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			list = append(list, part)
			continue
		}
		list = append(list, strings.Fields(part)...)
	}
	return list
}

// live runs a life one way.
func live(t *testing.T, way, dir string) map[string]heard {
	t.Helper()
	said, id := map[string]heard{}, ""
	for i, c := range life(dir) {
		line := strings.NewReplacer("ID", id, "WAY", way).Replace(c.line)
		code, out, errOut := wrenn(t, c.stdin, split(line)...)
		if i == 0 {
			id = strings.TrimSpace(out)
		}
		said[c.line] = heard{code, inOrder(c.line, strings.ReplaceAll(sameOnly(out), way, "WAY")), strings.ReplaceAll(sameOnly(errOut), way, "WAY")}
	}
	return said
}

// TestTheSameThroughAnAgentAndAServer: exit codes, output and JSON do not depend on who is asked.
func TestTheSameThroughAnAgentAndAServer(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "in", "file"), []byte("content\n"), 0o640)
	write(t, filepath.Join(dir, "in", "long"), bytes.Repeat([]byte("x"), 100_000), 0o755)
	said := map[string]map[string]heard{}
	for way, choose := range ways {
		t.Run(way, func(t *testing.T) {
			choose(t, newWorld(t))
			said[way] = live(t, way, dir)
		})
	}
	for _, c := range life(dir) {
		agent, server := said["agent"][c.line], said["server"][c.line]
		if agent.code != server.code || agent.out != server.out || (agent.err == "") != (server.err == "") {
			t.Errorf("%s\n  agent:  %+v\n  server: %+v", c.line, agent, server)
		}
	}
	for way, heard := range said {
		typed := heard["exec -i --env A=1 --cwd / ID -- sh -c 'pwd; echo $A; cat'"]
		if typed.code != 0 || typed.out != "/\n1\ntyped\n" {
			t.Errorf("%s: %+v", way, typed)
		}
		got, err := os.ReadFile(filepath.Join(dir, "out-"+way, "file"))
		info, serr := os.Stat(filepath.Join(dir, "out-"+way, "file"))
		if err != nil || serr != nil || string(got) != "content\n" || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %q, %v, %v %v", way, got, info, err, serr)
		}
	}
}

// TestWhatAServerDoesNotDo says so, with the fix.
func TestWhatAServerDoesNotDo(t *testing.T) {
	ways["server"](t, newWorld(t))
	id := made(t)
	for _, c := range []struct {
		line, says string
		code       int
	}{
		{"logs " + id, "--context local", exitFailed}, {"create --cold", "--cold", exitUsage}, {"create --stream", "--stream", exitUsage},
		{"create --console --url http://x", "--console", exitUsage}, {"--state-dir /x --context y ls", "--state-dir", exitUsage},
		{"ls --url http://x --context y", "--url", exitUsage}, {"ls --context none", "wrenn login", exitUsage}, {"ls --url nowhere", "--url", exitUsage},
	} {
		if code, _, errOut := wrenn(t, "", split(c.line)...); code != c.code || !strings.Contains(errOut, c.says) || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%s: %d, %q", c.line, code, errOut)
		}
	}
	t.Setenv("WRENN_URL", "http://127.0.0.1:1")
	if code, _, errOut := wrenn(t, "", "create"); code != exitFailed || !strings.Contains(errOut, "127.0.0.1:1") || !strings.Contains(errOut, "WRENN_URL") {
		t.Error(code, errOut)
	}
}

func TestStatsThroughAServer(t *testing.T) {
	ways["server"](t, newWorld(t))
	id, other := made(t), made(t)
	if code, _, errOut := wrenn(t, "", "pause", other); code != 0 {
		t.Fatal(errOut)
	}
	_, out, _ := wrenn(t, "", "stats", "--json")
	if list := decode[[]statsView](t, out); len(list) != 1 || list[0].ID != id || list[0].Time.IsZero() || list[0].MemoryLimitBytes == 0 {
		t.Errorf("%+v", list)
	}
	if code, out, errOut := wrenn(t, "", "stats", id); code != 0 || !strings.Contains(out, id) {
		t.Error(code, out, errOut)
	}
	if code, _, errOut := wrenn(t, "", "stats", other); code != exitFailed || !strings.Contains(errOut, "paused") {
		t.Error(code, errOut)
	}
}

func TestCompletionThroughAServer(t *testing.T) {
	ways["server"](t, newWorld(t))
	id := made(t)
	if code, out, _ := wrenn(t, "", "__complete", "exec", ""); code != 0 || !strings.Contains(out, id+"\trunning from base") {
		t.Error(code, out)
	}
}

// login stores a key under a name.
func loggedIn(t *testing.T, w *servertest.World, name string) {
	t.Helper()
	if code, out, errOut := wrenn(t, w.Key+"\n", "login", "--name", name, w.URL); code != 0 || !strings.Contains(out, name) || strings.Contains(out+errOut, w.Key) {
		t.Fatal(code, out, errOut)
	}
}

func TestContexts(t *testing.T) {
	w := newWorld(t)
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	for _, c := range []struct {
		stdin, line, says string
		code              int
	}{
		{"", "login " + w.URL, "key", exitUsage}, {"wrenn_bad\n", "login " + w.URL, "does not know it", exitUsage}, {"a\x01b", "login " + w.URL, "characters", exitUsage},
		{"x", "login nowhere", "address", exitUsage}, {"x", "login --name local " + w.URL, "--name", exitUsage}, {"x", "login --name a/b " + w.URL, "--name", exitUsage},
		{"x", "login http://127.0.0.1:1", "127.0.0.1:1", exitFailed}, {"", "logout", "context", exitUsage}, {"", "context use none", "wrenn login", exitUsage},
		{"", "key ls", "wrenn login", exitFailed},
	} {
		if code, _, errOut := wrenn(t, c.stdin, split(c.line)...); code != c.code || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: %d, %q", c.line, code, errOut)
		}
	}
	loggedIn(t, w, "work")
	loggedIn(t, w, "other")
	path := filepath.Join(home, "wrenn", "config.json")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	id := made(t)
	t.Setenv("WRENN_CONTEXT", "work")
	if code, out, _ := wrenn(t, "", "ls", "-q"); code != 0 || strings.TrimSpace(out) != id {
		t.Error(code, out)
	}
	for _, c := range []struct{ context, line, says string }{
		{"work", "context show", `named by context "work"`}, {"work", "context show --context other", `context "other"`}, {"work", "context show --context local", "this machine"},
		{"work", "context show --url " + w.URL + "/", "named by --url"}, {"", "context show --json", `"url":"` + w.URL}, {"", "context ls", "work"},
		{"", "context use work", w.URL}, {"", "context show", `context "work"`}, {"", "context use local", "this machine"}, {"", "context show", "this machine"},
		{"", "context rm other", "other"}, {"", "logout work", "work"},
	} {
		t.Setenv("WRENN_CONTEXT", c.context)
		code, out, errOut := wrenn(t, "", split(c.line)...)
		if code != 0 || !strings.Contains(out, c.says) || strings.Contains(out+errOut, w.Key) {
			t.Errorf("%s: %d, %q, %q", c.line, code, out, errOut)
		}
	}
	_, out, _ := wrenn(t, "", "context", "ls", "--json")
	if list := decode[[]contextView](t, out); len(list) != 1 || list[0].Name != "local" || !list[0].Current {
		t.Error(out)
	}
}

func TestKeys(t *testing.T) {
	ways["server"](t, newWorld(t))
	code, out, errOut := wrenn(t, "", "key", "create", "ci", "--scope", "read,write", "--expires", "1h")
	secret := strings.TrimSpace(out)
	id := regexp.MustCompile(`ky-[0-9a-z]{20}`).FindString(errOut)
	if code != 0 || !strings.HasPrefix(secret, "wrenn_") || id == "" || strings.Contains(errOut, secret) {
		t.Fatal(code, out, errOut)
	}
	_, out, _ = wrenn(t, "", "key", "create", "two", "--json")
	if v := decode[keyView](t, out); v.Key == "" || v.ExpiresAt != nil || v.Name != "two" {
		t.Error(out)
	}
	if code, _, errOut := wrenn(t, "", "key", "create", "x", "--role", "king"); code != exitUsage {
		t.Error(code, errOut)
	}
	_, out, _ = wrenn(t, "", "key", "create", "three", "--role", "viewer", "--json")
	if v := decode[keyView](t, out); len(v.Scopes) != 1 || v.Scopes[0] != "read" {
		t.Error(out)
	}
	if code, out, errOut := wrenn(t, "", "key", "revoke", id); code != 0 || out != id+"\n" {
		t.Error(code, out, errOut)
	}
	_, out, _ = wrenn(t, "", "key", "ls", "--json")
	for _, k := range decode[[]keyView](t, out) {
		if want := map[bool]string{true: "revoked", false: "good"}[k.ID == id]; k.state(time.Now()) != want || k.Key != "" {
			t.Errorf("%+v", k)
		}
	}
	if _, out, _ = wrenn(t, "", "key", "ls"); !strings.Contains(out, "revoked") || strings.Contains(out, secret) {
		t.Error(out)
	}
	t.Setenv("WRENN_API_KEY", secret)
	if code, _, errOut := wrenn(t, "", "ls"); code != exitDenied || !strings.Contains(errOut, "wrenn login") {
		t.Error(code, errOut)
	}
	for _, line := range []string{"key create", "key create x --expires soon", "key create x --role viewer --scope read", "key revoke"} {
		if code, _, errOut := wrenn(t, "", split(line)...); code != exitUsage {
			t.Errorf("%s: %d, %q", line, code, errOut)
		}
	}
}
