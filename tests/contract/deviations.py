"""Where we are not v1: what is new, and where a weakness of v1 is mended.

These two kinds of entries, and nothing else, loosen the comparison with the recordings.
"""

import json
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

from tests.contract.cases import Expected

# --- new beside v1 -------------------------------------------------------------------------------------


def without_position(recorded: Any, found: Any) -> None:
    """A cursor holds the digest of what was read as one more member, `position` (contract L3)."""
    if isinstance(recorded, dict) and "eventsFile" in recorded and "eventLineOffset" in recorded:
        position = found.pop("position", None)
        assert position is None or isinstance(position, dict)


# Files that commands and agents may leave in the repository, as patterns.
BESIDE_V1 = {
    ".superloop/sprite-agent/*": "the ledger of control and its locks (architecture 7)",
    ".superloop/trace/*": "the index of traces (architecture 8)",
    ".superloop/ops-manager/*/telemetry/control-invocations.chain.*": "the hash chain of the audit",
    ".superloop/ops-manager/*/alert-retries.json": "alerts that a sink did not take (contract L17)",
}


def is_beside_v1(path: str) -> bool:
    """Whether v1 knows no such file, so that nothing is recorded of it."""
    return any(fnmatch(path, pattern) for pattern in BESIDE_V1)


# Commands that may add a line `note: ...` on standard error when they go through an agent.
NOTES_THROUGH_AN_AGENT = {
    "confirm-intent": "v1 looks at local files only, and says nothing of looks that fail"
}

# An agent keeps heartbeat.v1.json for a run whose process lives, and the recorded process id may by chance
# be that of a living process here. This one is above the largest that Linux gives out.
PROCESS = {'"pid":4321': '"pid":99999999', '"pid": 4321': '"pid": 99999999'}

# --- a request that was sent and not answered ----------------------------------------------------------

# E.2 calls it `failed_command`, though it may have been run; L16 calls that a weakness. The same holds for a
# 409 without an outcome, which is answered after the command ran (D.3), and for a success without one (L6).
# So nothing is said of the command, and the exit code is 2. No recording shows a lost connection; for the
# columns of E.2 see test_scripted_services.
NO_ANSWER: dict[str, Any] = {
    "status": "ambiguous",
    "exit": 2,
    "exit_code": None,
    "execution": "unknown",
    "output": None,
}

# --- weaknesses of v1 mended (contract L) --------------------------------------------------------------

Remedy = Callable[[Expected], Expected]


def _tail_is_not_written_yet(step: Expected) -> Expected:
    """L2: the unterminated second line is not there yet, so the first is all, and the cursor stays on it."""
    first_line = step.stdout.splitlines(keepends=True)[0]
    files = {path: _set(text or "", eventLineOffset=1) for path, text in step.files.items()}
    return step._replace(stdout_format="json", stdout=first_line, files=dict(files))


def _nothing_new(step: Expected) -> Expected:
    """L2: the cursor fits the log, so a second poll finds nothing and is no error."""
    return step._replace(exit_code=0, stdout="", stderr="", stderr_mentions=[])


def _last_line_is_the_terminated_one(step: Expected) -> Expected:
    """L2: the snapshot tells of the line that it counts, not of the unterminated one after it."""
    document = json.loads(step.stdout)
    document["health"].update(lastEventAt="2024-03-11T09:00:00Z", lastEventName="loop_start")
    return step._replace(stdout=json.dumps(document) + "\n")


def _lag_is_of_now(step: Expected) -> Expected:
    """L11: the heartbeat is two minutes old at `--now`, whatever lag was written down when it came."""
    document = json.loads(step.stdout)
    reason = {
        "code": "runtime_heartbeat_stale",
        "severity": "degraded",
        "metric": "heartbeatLagSeconds",
        "observed": "120",
        "threshold": "120",
    }
    document.update(status="degraded", reasonCodes=[reason["code"]], reasons=[reason])
    document["metrics"]["heartbeatLagSeconds"] = 120
    return step._replace(stdout=json.dumps(document) + "\n")


def _cursor_moves_last(step: Expected) -> Expected:
    """L10: the pass that fails in projection leaves the cursor where it was, so there is none yet."""
    files = {path: text for path, text in step.files.items() if not path.endswith("/cursor.json")}
    for path, text in files.items():
        if path.endswith("/telemetry/reconcile.jsonl"):
            rows = [json.loads(line) for line in (text or "").splitlines()]
            moved = [{**row, "cursorOffsetBefore": 0, "cursorOffsetAfter": 0} for row in rows]
            files[path] = "".join(json.dumps(row) + "\n" for row in moved)
    return step._replace(files=files)


def _one_unset_secret_fails_one_sink(step: Expected) -> Expected:
    """L18: the sink whose variable is set is asked, and answers as before; only the other one fails."""
    files = dict(step.files)
    for path, text in step.files.items():
        if path.endswith("/alerts.jsonl"):
            files[path] = _with_unset_secret(text or "")
        else:
            files[path] = _compact(text or "", failureReasonCodes=["http_error", "missing_secret"])
    stdout = _compact(step.stdout, failureReasonCodes=["http_error", "missing_secret"])
    body = {
        "schemaVersion": "v1",
        "emittedAt": "<now>",
        "source": {
            "repoPath": "<repo>",
            "loopId": "alpha",
            "channel": "ops_manager_alert_dispatch",
            "traceId": "td",
        },
        "event": {"category": "three", "severity": "warning"},
        "sink": {"id": "a", "type": "webhook"},
        "escalation": {"timestamp": "2024-03-11T09:00:00Z", "loopId": "alpha", "category": "three"},
    }
    headers = {"Content-Type": "application/json"}
    request = {"method": "POST", "path": "/a", "headers": headers, "body": json.dumps(body)}
    return step._replace(stdout=stdout, files=files, sink_requests=[request])


def _with_unset_secret(text: str) -> str:
    """The telemetry of that step: a row like the one before, about another escalation."""
    *before, last = text.splitlines(keepends=True)
    row = json.loads(before[-1])
    third = json.loads(last)["escalation"]
    row.update(escalationCategory="three", escalation=third)
    row["route"].update(category="three", envStatus={"A_URL": {"present": True}, "B_URL": {"present": False}})
    row["sinks"][1].update(reasonCode="missing_secret", httpStatus=None, message="not set: B_URL")
    return "".join(before) + json.dumps(row) + "\n"


def _compact(text: str, **members: Any) -> str:
    return json.dumps({**json.loads(text), **members}) + "\n"


def _set(text: str, **members: Any) -> str:
    return json.dumps({**json.loads(text), **members}, indent=2) + "\n"


# (case, number of the step from 0) -> what we do instead.
REMEDIES: dict[tuple[str, int], Remedy] = {
    ("poll-unterminated-tail", 0): _tail_is_not_written_yet,
    ("poll-unterminated-tail", 1): _nothing_new,
    ("snapshot-no-trailing-newline", 0): _last_line_is_the_terminated_one,
    ("health-heartbeat-sources", 0): _lag_is_of_now,
    ("alert-dispatch-sink-errors", 2): _one_unset_secret_fails_one_sink,
    ("reconcile-service-bad-answers", 1): _cursor_moves_last,
    ("reconcile-service-bad-answers", 2): _cursor_moves_last,
    ("reconcile-service-bad-answers", 3): _cursor_moves_last,
}


# L3 changes everything that follows: v1 fails, then reports drift for the replay that mends it. So these
# steps are not compared with the recording; what they must give is said here. Each check is given the
# printed document and a function that reads a file of the manager directory (None: there is none).
Read = Callable[[str], str | None]


def _new_log_is_read_from_its_start(document: Any, read: Read) -> None:
    """L3: the first line is another one, so the log is another one: no failure, no drift, told once."""
    _is_healthy(document, read)
    sequence = document["sequence"]
    assert sequence["log"] == {"verdict": "log_replaced", "previousLine": 4, "line": 2}
    assert sequence["snapshot"]["previous"] == 4
    assert [sequence["events"][name] for name in ("ingestedCount", "first", "last")] == [2, 1, 2]
    assert document["transition"]["triggeringSignal"] == "event:iteration_start"
    row = _last_row(read)
    assert (row["cursorOffsetBefore"], row["cursorOffsetAfter"], row["eventsIngested"]) == (4, 2, 2)


def _replay_is_no_drift(document: Any, read: Read) -> None:
    """L3: `--from-start` reads old events again because somebody asked for it."""
    _is_healthy(document, read)
    assert "log" not in document["sequence"]
    row = _last_row(read)
    assert (row["fromStart"], row["cursorOffsetBefore"], row["cursorOffsetAfter"]) == (True, 0, 2)


def _idle_pass_stays_healthy(document: Any, read: Read) -> None:
    """L3: nothing is left to recover from."""
    _is_healthy(document, read)
    assert document["sequence"]["transition"]["recoveredFromDrift"] is False
    assert document["transition"]["triggeringSignal"] == "snapshot_status:running"
    assert _last_row(read)["eventsIngested"] == 0


def _shorter_log_is_told(document: Any, read: Read) -> None:
    """L3 over HTTP, where nothing but its length tells one log from another: the pass before has failed as
    in v1, and that the log is shorter is told; but reading it again is no drift of the events."""
    sequence = document["sequence"]
    assert sequence["violations"] == ["snapshot_sequence_regression"]
    assert sequence["events"]["regressed"] is False
    assert document["health"]["reasonCodes"] == ["divergence_detected", "ordering_drift_detected"]
    assert document["cursor"] == {"eventLineOffset": 2, "eventLineCount": 2}
    row = _last_row(read)
    assert (row["fromStart"], row["cursorOffsetBefore"], row["cursorOffsetAfter"]) == (True, 0, 2)
    categories = [json.loads(line)["category"] for line in (read("escalations.jsonl") or "").splitlines()]
    assert categories == [
        "health_degraded",
        "divergence_detected",
        "ordering_drift_detected",
        "health_degraded",
    ]


def _shorter_log_is_the_new_state(document: Any, read: Read) -> None:
    """L3 over HTTP: from here on the shorter log is what is known; it has been told of."""
    assert document["sequence"]["transition"]["recoveredFromDrift"] is True
    _is_healthy(document, lambda name: None if name == "escalations.jsonl" else read(name))
    assert len((read("escalations.jsonl") or "").splitlines()) == 4


def _is_healthy(document: Any, read: Read) -> None:
    assert document["health"]["status"] == "healthy"
    assert document["divergence"]["any"] is False
    assert document["sequence"]["violations"] == []
    assert document["cursor"] == {"eventLineOffset": 2, "eventLineCount": 2}
    assert json.loads(read("state.json") or "") == document
    assert json.loads(read("cursor.json") or "")["eventLineOffset"] == 2
    assert read("escalations.jsonl") is None


def _last_row(read: Read) -> Any:
    return json.loads((read("telemetry/reconcile.jsonl") or "").splitlines()[-1])


INSTEAD: dict[tuple[str, int], Callable[[Any, Read], None]] = {
    ("reconcile-truncated-log", 2): _new_log_is_read_from_its_start,
    ("reconcile-truncated-log", 3): _replay_is_no_drift,
    ("reconcile-truncated-log", 4): _idle_pass_stays_healthy,
}
INSTEAD_OVER_HTTP: dict[tuple[str, int], Callable[[Any, Read], None]] = {
    ("reconcile-truncated-log", 3): _shorter_log_is_told,
    ("reconcile-truncated-log", 4): _shorter_log_is_the_new_state,
}


def instead(name: str, number: int, way: str) -> Callable[[Any, Read], None] | None:
    """What is checked in place of the recording of a step; None: the recording itself."""
    return (INSTEAD_OVER_HTTP if way == "http" else INSTEAD).get((name, number))
