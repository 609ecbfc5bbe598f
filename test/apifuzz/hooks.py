"""What Schemathesis can't read in the document.

A sandbox's id that is made up is nobody's: in half of the requests it is replaced by that of one that is there. It may run, be paused or have
ended, as earlier requests left it.

Where the document says a rule in words alone, a request that breaks it is refused with the field that breaks it, rightly. RULES has all of them.
"""

import itertools
import json
import os
import threading
import urllib.error
import urllib.request

import schemathesis
from schemathesis.generation.meta import TestPhase

COMMAND = {
    "stdin.data": "base64 where it says so",
    **dict.fromkeys(["cmd", "args", "env", "cwd", "user"], "bounds that are in bytes, and no zero byte"),
}

KEY_RULES = {
    "role": "a role or scopes, one of them",
    "expires_at": "a time to come",
    "limits.burst": "only with requests_per_second",
}
WEBHOOK = {"url": "an URL that messages may go to", "secret": "base64, of 24 to 64 bytes"}
# Of a file, the guest says what is wrong with its path; a path has bounds in bytes and no zero byte.
FILE = dict.fromkeys(["path", "from", "to", "user", "mode"], "a file system's rules, and users that the guest has")

# The fields of an operation's requests for which more holds than their schema can say.
RULES = {
    "createSandbox": {
        "template": "one of template and snapshot, and of a template that is there",
        "snapshot": "its sizes are fixed",
        "memory_mib": "a host's least and most",
        "disk_bytes": "at least the template's",
        "metadata": "a name has 1 to 255 bytes, no = and no zero byte",
    },
    "updateSandbox": {
        "on_expiry": "only with ttl_seconds",
        "metadata": "a name has 1 to 255 bytes, no = and no zero byte",
    },
    "createKey": KEY_RULES,
    "createTeamKey": KEY_RULES,
    "createTeam": {"limits.burst": "only with requests_per_second"},
    "updateTeam": {"limits.burst": "only with requests_per_second"},
    "createWebhook": WEBHOOK,
    "updateWebhook": WEBHOOK,
    "execCommand": {**COMMAND, "more_stdin": "only of a stream, which tells the pid"},
    "streamCommand": {**COMMAND, "more_stdin": "only without stdin"},
    "startProcess": COMMAND,
    "writeStdin": {"input.data": "base64 where it says so"},
    "openTerminal": {
        "Upgrade": "a WebSocket, which is not spoken here",
        "pid": "only without a command",
        "args": "only with a command",
    },
    **dict.fromkeys(["statFile", "listFiles", "makeDir", "moveFile", "removeFile", "watchFiles", "readFile", "writeFile"], FILE),
    "streamEvents": {"Last-Event-ID": "the id of an event"},
    "listSandboxes": {"cursor": "of the page before", "metadata": "no zero byte"},
    "listSnapshots": {"cursor": "of the page before"},
    **dict.fromkeys(
        ["listKeys", "listTeams", "listTeamKeys", "listHosts", "listAudit", "listWebhooks", "listWebhookDeliveries"],
        {"cursor": "of the page before"},
    ),
}
KEY = "Idempotency-Key"  # of every operation that takes one: it is the same request's


def operation_id(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Keeps what is the server's fault."""
    if response.status_code == 431:
        return False  # a URL of over a MiB, which Go's HTTP refuses before the server has it
    if failure.title == "SSE event violates schema":
        return False  # OpenAPI 3.0 has no word for events: the document has all of a stream as one text
    if failure.title == "Deleted resource still available":
        return operation_id(case) not in ("getSandbox", "getHost")  # one that has ended, or was removed, is kept and says so
    if failure.title != "Schema-valid request rejected" or response.status_code != 400:
        return True
    error = response.json()
    field = error.get("field", "")
    rules = RULES.get(operation_id(case), {})
    if rules is FILE and not field and error["message"].startswith("guest: "):
        return False  # a folder where a file is wanted, and the like: which of the paths it is about is in the guest's words
    return field != KEY and not any(field == name or field.startswith(name + ".") for name in rules)


def call(method, path, body=None):
    request = urllib.request.Request(
        os.environ["WRENN_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["WRENN_API_KEY"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or b"null")


def attempt(method, path, body=None):
    """Does what may not be possible now, and says whether it was."""
    try:
        call(method, path, body)
        return True
    except urllib.error.HTTPError:
        return False


class Sandboxes:
    """Sandboxes for requests to be about, each for so many of them."""

    REQUESTS = 20

    def __init__(self):
        self.lock = threading.Lock()
        self.asked = itertools.count()
        self.id = None

    def next(self, fresh=False):
        with self.lock:
            if next(self.asked) % self.REQUESTS == 0 or fresh:
                # Others are made all the time, and the host has limits.
                for sandbox in call("GET", "/v1/sandboxes?limit=1000")["sandboxes"]:
                    call("DELETE", "/v1/sandboxes/" + sandbox["id"])
                self.id = call("POST", "/v1/sandboxes", {"template": "base"})["id"]
            return self.id


sandboxes = Sandboxes()
turn = itertools.count()
# What the rest needs: without its key, its team and its host a run would test little.
OWN_KEYS = {key["id"] for key in call("GET", "/v1/keys")["keys"]}
OWN_TEAM = call("GET", "/v1/team")["id"]
OWN_HOST = os.environ["WRENN_OWN_HOST"]
OTHER_HOSTS = os.environ["WRENN_OTHER_HOSTS"].split()


def keep(case, ids):
    """Turns away from what the run needs."""
    what = operation_id(case)
    if what in ("revokeKey", "revokeTeamKey") and ids.get("id") in OWN_KEYS:
        ids["id"] = "ky-00000000000000000000"
    if what in ("updateTeam", "deleteTeam") and ids.get("team") == OWN_TEAM:
        ids["team"] = "tm-00000000000000000000"
    if what in ("drainHost", "removeHost") and ids.get("id") == OWN_HOST:
        ids["id"] = OTHER_HOSTS[-1]
    if what == "deleteTemplate" and ids.get("name") == "base":
        ids["name"] = "none"


def new_team(n):
    return call("POST", "/v1/teams", {"name": f"made-{n}"})["id"]


def new_webhook():
    """Makes one for a receiver that the test has, in place of those that there are: a team has few."""
    for webhook in call("GET", "/v1/webhooks")["webhooks"]:
        attempt("DELETE", "/v1/webhooks/" + webhook["id"])
    return call("POST", "/v1/webhooks", {"url": os.environ["WRENN_RECEIVER"], "states": ["failed"]})["webhook"]["id"]


def there(case, ids, n):
    """Gives a request ids of what is there."""
    what, path = operation_id(case), case.operation.path
    if path.startswith("/v1/sandboxes/{id}"):
        ids["id"] = sandboxes.next()
        if any(part in path for part in ("/exec", "/processes", "/files/", "/metrics")):
            if call("GET", f"/v1/sandboxes/{ids['id']}")["state"] != "running":
                ids["id"] = sandboxes.next(fresh=True)
        if what == "resumeSandbox":
            attempt("POST", f"/v1/sandboxes/{ids['id']}/pause")
        if "pid" in ids:
            ids["pid"] = 1
    elif what == "deleteSnapshot":
        if attempt("POST", f"/v1/sandboxes/{sandboxes.next(fresh=True)}/snapshots", {"name": f"made-{n}"}):
            ids["name"] = f"made-{n}"
    elif path.startswith("/v1/webhooks/{id}"):
        ids["id"] = new_webhook()
        if "delivery" in ids:
            ids["delivery"] = call("POST", f"/v1/webhooks/{ids['id']}/test")["id"]
    elif what == "createWebhook":
        attempt("DELETE", "/v1/webhooks/" + new_webhook())
    elif path.startswith("/v1/teams/{team}"):
        ids["team"] = new_team(n)
        if what == "revokeTeamKey":
            ids["id"] = call("POST", f"/v1/teams/{ids['team']}/keys", {"name": "made", "role": "viewer"})["info"]["id"]
    elif what == "revokeKey":
        ids["id"] = call("POST", "/v1/keys", {"name": "made", "role": "viewer"})["info"]["id"]
    elif path.startswith("/v1/hosts/{id}"):
        ids["id"] = OTHER_HOSTS.pop() if what == "removeHost" and len(OTHER_HOSTS) > 1 else OTHER_HOSTS[0]


def sound(case, n):
    """Has the parts of a request be good together, where its schema knows only each."""
    what, body, query = operation_id(case), case.body, case.query or {}
    if isinstance(body, dict):
        if what == "createSandbox":
            for field in ("snapshot", "vcpus", "memory_mib", "disk_bytes"):
                body.pop(field, None)
            body["template"] = "base"
        if what in ("createKey", "createTeamKey"):
            for field in ("scopes", "expires_at"):
                body.pop(field, None)
            body["role"] = "developer"
        if isinstance(body.get("limits"), dict) and "requests_per_second" not in body["limits"]:
            body["limits"].pop("burst", None)
        if what in ("createWebhook", "updateWebhook"):
            body.pop("secret", None)
            body["url"] = os.environ["WRENN_RECEIVER"]
        if what in ("startProcess", "execCommand", "streamCommand"):
            for field in ("stdin", "more_stdin") if what == "streamCommand" else ():
                body.pop(field, None)
            body["cmd"] = "any"
        if what == "writeStdin":
            body["input"] = {"encoding": "utf-8", "data": "a"}
        if "user" in body:
            body["user"] = ""
    if "/files/" in case.operation.path and case.operation.method.upper() in ("GET", "HEAD"):
        # A folder with a file in it: reading needs the one, listing and watching the other.
        attempt("POST", f"/v1/sandboxes/{case.path_parameters['id']}/files/mkdir", {"path": f"made-{n}/in"})
        query["path"] = f"made-{n}"
        if what == "readFile":
            query["path"] = f"made-{n}/file"
            write(case.path_parameters["id"], query["path"])
        query.pop("user", None)


def write(sandbox, path):
    request = urllib.request.Request(
        f"{os.environ['WRENN_URL']}/v1/sandboxes/{sandbox}/files/content?path={path}",
        method="PUT",
        data=b"some bytes",
        headers={"Authorization": "Bearer " + os.environ["WRENN_API_KEY"], "Content-Type": "application/octet-stream"},
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError:
        pass  # the sandbox may have ended


@schemathesis.hook
def before_call(context, case, kwargs):
    """Gives every other request what it is about, and a key of its own: few that are made up would be good."""
    ids = case.path_parameters or {}
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    n = next(turn)
    if n % 2 == 0 and positive:
        there(case, ids, n)
        key = (case.headers or {}).get(KEY)
        if case.meta.phase.name is not TestPhase.COVERAGE:  # there, what is in a header or a body is what is tested
            if isinstance(key, str) and 0 < len(key) < 200:
                case.headers[KEY] = f"{key}-{n}"
            sound(case, n)
    elif n % 2 == 0 and ids.get("id") == "cl-0123456789abcdefghij":
        ids["id"] = sandboxes.next()
    keep(case, ids)
