package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/rest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// roles are what each may, said once more than in the code that is tested.
var roles = map[string][]string{
	"viewer": {"read"}, "developer": {"read", "write"}, "admin": {"read", "write", "admin"}, "operator": {"read", "write", "admin", "operator"},
}

// above are the operations that more than read and write is needed for.
var above = map[string]string{
	"createKey": "admin", "listKeys": "admin", "revokeKey": "admin", "listAudit": "admin",
	"createTeam": "operator", "listTeams": "operator", "getTeam": "operator", "updateTeam": "operator", "deleteTeam": "operator",
	"createTeamKey": "operator", "listTeamKeys": "operator", "revokeTeamKey": "operator", "deleteTemplate": "operator",
	"listHosts": "operator", "getHost": "operator", "createHostToken": "operator", "drainHost": "operator", "undrainHost": "operator", "removeHost": "operator",
}

var inPath = regexp.MustCompile(`\{(\w+)\}`)

// TestEveryOperationForEveryRole tries each operation of the document with a key of each role: it is refused with 403 or not at all on that account.
func TestEveryOperationForEveryRole(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	keys := map[string]string{"none": "none"}
	for role, scopes := range roles {
		keys[role] = w.NewKey(w.Team, scopes...)
	}
	tried := map[string]bool{}
	for path, item := range contract.spec.Paths.Map() {
		for method, op := range item.Operations() {
			scope, _ := op.Extensions["x-scope"].(string)
			tried[op.OperationID] = true
			least := "write"
			if method == http.MethodGet {
				least = "read"
			}
			if op.Security != nil && len(*op.Security) == 0 {
				least = ""
			}
			if want, is := above[op.OperationID]; is {
				least = want
			} else if scope == "write" {
				least = "write" // a GET that changes something
			}
			if scope != least {
				t.Errorf("%s needs %q, want %q", op.OperationID, scope, least)
			}
			filled := inPath.ReplaceAllStringFunc(path, func(p string) string {
				switch {
				case p == "{team}":
					return "tm-0123456789abcdefghij"
				case p == "{id}" && strings.Contains(path, "keys"):
					return "ky-0123456789abcdefghij"
				case p == "{id}":
					return nobody
				}
				return "none"
			})
			for role, key := range keys {
				status := w.tries(call{method: method, path: filled, key: key, body: "no body of any operation"})
				want := map[bool]string{true: "allowed", false: "403"}[least == "" || slices.Contains(roles[role], least)]
				if role == "none" && least != "" {
					want = "401"
				}
				got := "allowed"
				if status == 401 || status == 403 {
					got = strconv.Itoa(status)
				}
				if role == "none" && status == 429 { // so many without a key
					got = "401"
				}
				if got != want {
					t.Errorf("%s by %s: %d, want it to be %s", op.OperationID, role, status, want)
				}
			}
		}
	}
	for op := range above {
		if !tried[op] {
			t.Errorf("%s is no operation", op)
		}
	}
}

// tries sends a request and returns the answer's status; a stream has one as well.
func (w *world) tries(c call) int {
	w.t.Helper()
	if c.method == http.MethodGet {
		c.body = nil
	}
	resp, err := w.HTTP.Client().Do(w.request(w.t.Context(), c))
	if err != nil {
		w.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestTeamsAndTheirKeys(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	made := as[rest.Team](t, w.do(call{method: "POST", path: "/v1/teams", body: `{"name":"theirs","limits":{"sandboxes":1,"vcpus":4}}`}), 201)
	if made.Name != "theirs" || *made.Limits.Sandboxes != 1 || made.Limits.Snapshots != nil {
		t.Errorf("%+v", made)
	}
	fails(t, w.do(call{method: "POST", path: "/v1/teams", body: `{"name":"theirs"}`}), 409, rest.AlreadyExists)
	at := "/v1/teams/" + made.ID
	if list := as[rest.TeamPage](t, w.do(call{method: "GET", path: "/v1/teams"}), 200); len(list.Teams) != 2 {
		t.Errorf("%+v", list)
	}
	key := as[rest.NewKey](t, w.do(call{method: "POST", path: at + "/keys", body: `{"name":"ann","role":"developer","limits":{"snapshots":0}}`}), 201)
	if *key.Info.Role != rest.RoleDeveloper || len(key.Info.Scopes) != 2 || *key.Info.Limits.Snapshots != 0 {
		t.Errorf("%+v", key)
	}
	sb := as[rest.Sandbox](t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`, key: key.Key}), 201)
	full := fails(t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`, key: key.Key}), 429, rest.ResourceExhausted)
	if or(full.Field) != "sandboxes" || *full.Used != 1 || *full.Limit != 1 {
		t.Errorf("%+v", full)
	}
	if a := w.do(call{method: "POST", path: "/v1/sandboxes/" + sb.ID + "/fork", body: `{}`, key: key.Key}); a.header.Get("Retry-After") != "" {
		t.Errorf("a quota does not free itself in %s s: %s", a.header.Get("Retry-After"), a.body)
	}
	none := fails(t, w.do(call{method: "POST", path: "/v1/sandboxes/" + sb.ID + "/snapshots", body: `{"name":"s"}`, key: key.Key}), 429, rest.ResourceExhausted)
	if or(none.Field) != "snapshots" {
		t.Errorf("%+v", none)
	}
	for _, c := range []call{{method: "GET", path: at}, {method: "GET", path: "/v1/team", key: key.Key}} {
		got := as[rest.Team](t, w.do(c), 200)
		if got.Used == nil || *got.Used != (rest.Used{Sandboxes: 1, Vcpus: 1, MemoryMib: 256, DiskBytes: 256<<20 + 8192}) {
			t.Errorf("%+v", got.Used)
		}
	}
	if got := as[rest.Team](t, w.do(call{method: "PATCH", path: at, body: `{"name":"other","limits":{}}`}), 200); got.Name != "other" || got.Limits != (rest.Limits{}) {
		t.Errorf("%+v", got)
	}
	if e := fails(t, w.do(call{method: "DELETE", path: at}), 409, rest.FailedPrecondition); !strings.Contains(e.Message, sb.ID) {
		t.Errorf("it does not say who is in it: %s", e.Message)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + sb.ID, key: key.Key}), 204)
	second := as[rest.NewKey](t, w.do(call{method: "POST", path: at + "/keys", body: `{"name":"bob","scopes":["write"]}`}), 201)
	if second.Info.Role != nil {
		t.Errorf("%+v", second.Info)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: at + "/keys/" + second.Info.ID}), 204)
	if list := as[rest.KeyPage](t, w.do(call{method: "GET", path: at + "/keys"}), 200); len(list.Keys) != 2 {
		t.Errorf("%+v", list)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: at}), 204)
	fails(t, w.do(call{method: "GET", path: "/v1/team", key: key.Key}), 401, rest.Unauthenticated)
	for _, c := range []call{
		{method: "GET", path: at}, {method: "DELETE", path: at}, {method: "GET", path: at + "/keys"},
		{method: "POST", path: at + "/keys", body: `{"name":"a","role":"viewer"}`},
	} {
		fails(t, w.do(c), 404, rest.NotFound)
	}
	fails(t, w.do(call{method: "DELETE", path: "/v1/teams/" + w.Team}), 409, rest.FailedPrecondition)
	for body, field := range map[string]string{
		`{"name":"a"}`: "role", `{"name":"a","role":"viewer","scopes":["read"]}`: "role",
		`{"name":"a","role":"viewer","limits":{"burst":1}}`: "limits.burst",
	} {
		if e := fails(t, w.do(call{method: "POST", path: "/v1/keys", body: body}), 400, rest.InvalidArgument); or(e.Field) != field {
			t.Errorf("%s: %+v", body, e)
		}
	}
}

// TestAnAdminIsNoOperator: neither by the keys that it makes nor by those that it revokes.
func TestAnAdminIsNoOperator(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	admin := w.NewKey(w.Team, auth.Roles["admin"]...)
	for _, body := range []string{`{"name":"a","role":"operator"}`, `{"name":"a","scopes":["operator"]}`} {
		fails(t, w.do(call{method: "POST", path: "/v1/keys", body: body, key: admin}), 403, rest.PermissionDenied)
	}
	for _, k := range as[rest.KeyPage](t, w.do(call{method: "GET", path: "/v1/keys", key: admin}), 200).Keys {
		if slices.Contains(k.Scopes, rest.ScopeOperator) {
			fails(t, w.do(call{method: "DELETE", path: "/v1/keys/" + k.ID, key: admin}), 403, rest.PermissionDenied)
		}
	}
	other, _ := w.NewTeam("theirs")
	fails(t, w.do(call{method: "GET", path: "/v1/audit?team=" + other, key: admin}), 403, rest.PermissionDenied)
	as[rest.AuditPage](t, w.do(call{method: "GET", path: "/v1/audit?team=" + w.Team, key: admin}), 200)
}

// TestAuditLog: whatever is done or refused is on record before it is answered, and no key is in it.
func TestAuditLog(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	_, theirs := w.NewTeam("theirs")
	viewer := as[rest.NewKey](t, w.do(call{method: "POST", path: "/v1/keys", body: `{"name":"ci","role":"viewer"}`}), 201)
	sb := w.create(`{"template":"base"}`)
	as[rest.Sandbox](t, w.do(keyed("k", `{"template":"base"}`)), 201)
	as[rest.Sandbox](t, w.do(keyed("k", `{"template":"base"}`)), 201)
	as[rest.CommandResult](t, w.do(call{method: "POST", path: "/v1/sandboxes/" + sb.ID + "/exec", body: `{"cmd":"cat","args":["secret"]}`}), 200)
	fails(t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{}`, key: viewer.Key}), 403, rest.PermissionDenied)
	fails(t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{}`}), 400, rest.InvalidArgument)
	refused := w.do(call{method: "DELETE", path: "/v1/sandboxes/" + sb.ID, key: theirs})
	fails(t, refused, 404, rest.NotFound)
	as[rest.Sandbox](t, w.do(call{method: "GET", path: "/v1/sandboxes/" + sb.ID}), 200)
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + sb.ID}), 204)
	answer := w.do(call{method: "GET", path: "/v1/audit"})
	page := as[rest.AuditPage](t, answer, 200)
	var got []string
	for _, r := range slices.Backward(page.Records) {
		got = append(got, fmt.Sprint(r.Operation, " ", r.Status))
		if r.Address != "127.0.0.1" || r.KeyID == "" || r.TeamID == "" || r.RequestID == "" || time.Since(r.At) > time.Hour {
			t.Errorf("%+v", r)
		}
	}
	want := []string{"createKey 201", "createSandbox 201", "createSandbox 201", "createSandbox 201", "execCommand 200", "createSandbox 403",
		"createSandbox 400", "destroySandbox 404", "destroySandbox 204"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for i, resource := range map[int]string{8: "keys/" + viewer.Info.ID, 7: "sandboxes/" + sb.ID, 4: "sandboxes/" + sb.ID + "/exec", 0: "sandboxes/" + sb.ID} {
		if page.Records[i].Resource != resource {
			t.Errorf("record %d is of %q, want %q", i, page.Records[i].Resource, resource)
		}
	}
	if page.Records[1].RequestID != refused.header.Get("X-Request-Id") {
		t.Errorf("%+v", page.Records[1])
	}
	for _, secret := range []string{viewer.Key, w.Key, "secret"} {
		if strings.Contains(string(answer.body), secret) {
			t.Errorf("%q is in it", secret)
		}
	}
	own := as[rest.AuditPage](t, w.do(call{method: "GET", path: "/v1/audit?limit=2", key: w.NewKey(w.Team, auth.Roles["admin"]...)}), 200)
	if len(own.Records) != 2 || own.NextCursor == nil || own.Records[0].Operation != "listAudit" || own.Records[1].Operation != "destroySandbox" ||
		own.Records[1].Status != 204 {
		t.Errorf("a team's own: %+v", own)
	}
	as[rest.AuditPage](t, w.do(call{method: "GET", path: "/v1/audit?cursor=" + *own.NextCursor}), 200)
}

// TestNoAnswerWithoutARecord: when the log can't be written, that is the answer.
func TestNoAnswerWithoutARecord(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	pool, err := pgxpool.New(t.Context(), w.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "ALTER TABLE audit ADD CHECK (false) NOT VALID"); err != nil {
		t.Fatal(err)
	}
	a := w.do(call{method: "POST", path: "/v1/keys", body: `{"name":"ci","role":"viewer"}`})
	fails(t, a, 503, rest.Unavailable)
	if strings.Contains(string(a.body), auth.Prefix) {
		t.Errorf("the key is told: %s", a.body)
	}
	as[rest.SandboxPage](t, w.do(call{method: "GET", path: "/v1/sandboxes"}), 200)
}

// TestRateLimits: who asks too often is told when to come again, and that is true. Others are not in its way.
func TestRateLimits(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	body := `{"name":"ci","role":"viewer","limits":{"requests_per_second":1,"burst":3}}`
	limited := as[rest.NewKey](t, w.do(call{method: "POST", path: "/v1/keys", body: body}), 201)
	var mu sync.Mutex
	statuses, waits := map[int]int{}, []string{}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			a := w.do(call{method: "GET", path: "/v1/team", key: limited.Key})
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
			if a.status == 429 {
				waits = append(waits, a.header.Get("Retry-After"))
			}
		})
	}
	wg.Wait()
	if statuses[200] < 3 || statuses[200]+statuses[429] != 12 || len(waits) == 0 {
		t.Errorf("%v", statuses)
	}
	for _, wait := range waits {
		if wait != "1" {
			t.Errorf("Retry-After %q, want 1 of one a second", wait)
		}
	}
	as[rest.Team](t, w.do(call{method: "GET", path: "/v1/team"}), 200)
	time.Sleep(time.Second)
	as[rest.Team](t, w.do(call{method: "GET", path: "/v1/team", key: limited.Key}), 200)
}

func TestATemplateIsDeletedWhenNothingNeedsIt(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	sb := w.create(`{"template":"base"}`)
	if got := as[rest.Template](t, w.do(call{method: "GET", path: "/v1/templates/base"}), 200); got.MemoryMib != 256 || got.DiskBytes != 8192 {
		t.Errorf("%+v", got)
	}
	as[rest.Snapshot](t, w.do(call{method: "POST", path: "/v1/sandboxes/" + sb.ID + "/snapshots", body: `{"name":"kept"}`}), 201)
	if e := fails(t, w.do(call{method: "DELETE", path: "/v1/templates/base"}), 409, rest.FailedPrecondition); !strings.Contains(e.Message, sb.ID) {
		t.Errorf("it does not say who needs it: %s", e.Message)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + sb.ID}), 204)
	fails(t, w.do(call{method: "DELETE", path: "/v1/templates/base"}), 409, rest.FailedPrecondition)
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/snapshots/kept"}), 204)
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/templates/base"}), 204)
	fails(t, w.do(call{method: "GET", path: "/v1/templates/base"}), 404, rest.NotFound)
	fails(t, w.do(call{method: "DELETE", path: "/v1/templates/base"}), 404, rest.NotFound)
	fails(t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`}), 404, rest.NotFound)
}

// TestIdsAreParsedAlike holds what the REST document and the RPC's bounds say of ids against the one parser.
func TestIdsAreParsedAlike(t *testing.T) {
	patterns := map[string]int{}
	for _, kind := range []string{id.Prefix, id.Team, id.Key, id.Host, id.Snapshot, id.Template, id.Operation, id.Request, id.Webhook, id.Delivery, id.JoinToken} {
		patterns[id.Pattern(kind)] = 0
	}
	like := regexp.MustCompile(`^\^[a-z]{2}-`)
	see := func(where, pattern string) {
		if _, known := patterns[pattern]; like.MatchString(pattern) && !known {
			t.Errorf("%s: %s is not what internal/id takes", where, pattern)
		}
		patterns[pattern]++
	}
	text, err := json.Marshal(contract.spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"pattern":("[^"]*")`).FindAllStringSubmatch(string(text), -1) {
		var pattern string
		if err := json.Unmarshal([]byte(m[1]), &pattern); err != nil {
			t.Fatal(err)
		}
		see("openapi", pattern)
	}
	messages := pb.File_hostagent_v1_hostagent_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			fd := fields.Get(j)
			bounds, _ := proto.GetExtension(fd.Options(), pb.E_Bounds).(*pb.Bounds)
			see(string(fd.FullName()), bounds.GetPattern())
			if fd.Kind() == protoreflect.StringKind && (fd.Name() == "id" || fd.Name() == "ids") && strings.HasSuffix(string(messages.Get(i).Name()), "Request") &&
				bounds.GetPattern() != id.Pattern(id.Prefix) {
				t.Errorf("%s takes any text", fd.FullName())
			}
		}
	}
	if patterns[id.Pattern(id.Prefix)] < 10 || patterns[id.Pattern(id.Team)] == 0 || patterns[id.Pattern(id.Key)] == 0 {
		t.Errorf("the test does not see them: %v", patterns)
	}
}
