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
    "createKey": {"expires_at": "a time to come"},
    "execCommand": COMMAND,
    "streamCommand": COMMAND,
    "streamEvents": {"Last-Event-ID": "the id of an event"},
    "listSandboxes": {"cursor": "of the page before", "metadata": "no zero byte"},
    "listSnapshots": {"cursor": "of the page before"},
    "listKeys": {"cursor": "of the page before"},
}
KEY = "Idempotency-Key"  # of every operation that takes one: it is the same request's


def operation_id(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Keeps what is the server's fault."""
    if failure.title == "Deleted resource still available":
        return operation_id(case) != "getSandbox"  # one that has ended is kept for a while, and says so
    if failure.title != "Schema-valid request rejected" or response.status_code != 400:
        return True
    field = response.json().get("field", "")
    rules = RULES.get(operation_id(case), {})
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
own_keys = {key["id"] for key in call("GET", "/v1/keys")["keys"]}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Gives every other request a sandbox that is there, a key of its own, and a template that is there: few that are made up would be good."""
    ids = case.path_parameters or {}
    if operation_id(case) == "revokeKey" and ids.get("id") in own_keys:
        ids["id"] = "ky-00000000000000000000"  # without the key that the requests carry, the rest would test little
    n = next(turn)
    if n % 2:
        return
    if case.operation.path.startswith("/v1/sandboxes/{id}") and ids.get("id") == "cl-0123456789abcdefghij":
        ids["id"] = sandboxes.next()
        if operation_id(case) == "resumeSandbox":
            attempt("POST", f"/v1/sandboxes/{ids['id']}/pause")
    if operation_id(case) == "deleteSnapshot" and case.meta.generation.mode.is_positive:
        if attempt("POST", f"/v1/sandboxes/{sandboxes.next(fresh=True)}/snapshots", {"name": f"made-{n}"}):
            ids["name"] = f"made-{n}"
    key = (case.headers or {}).get(KEY)
    if case.meta.phase.name is TestPhase.COVERAGE:  # there, what is in a header or a body is what is tested
        return
    if isinstance(key, str) and 0 < len(key) < 200:
        case.headers[KEY] = f"{key}-{n}"
    if operation_id(case) == "createSandbox" and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        for field in ("snapshot", "vcpus", "memory_mib", "disk_bytes"):
            case.body.pop(field, None)
        case.body["template"] = "base"
