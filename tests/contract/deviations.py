"""Where we are not v1: what is not built yet, what is new, and where a weakness of v1 is mended.

Three kinds of entries, and nothing else, loosen the comparison with the recordings. An entry of the
first kind is deleted when its part is built.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.contract.cases import Expected

# --- not built yet: delete a row, and its cases and files are compared ---------------------------------

AREAS_NOT_YET = {
    "control": "`control` and `confirm-intent` (contract E) come with the control plane",
    "http": "the HTTP bridge (contract D) comes with the control plane",
    "alerts": "sinks and dispatch (contract I) come with alerting",
}
CASES_NOT_YET = {
    "reconcile-sequence-violations": "needs the HTTP client: a scripted service answers (contract D.5)",
    "reconcile-service-bad-answers": "needs the HTTP client: a scripted service answers (contract D.5)",
}
# Steps of other cases that are not run: the files that they left are put there as recorded.
COMMANDS_NOT_YET = {"control": "contract E comes with the control plane"}
# Files that no command writes yet: put there as recorded, and not compared.
FILES_NOT_YET = {
    "alert-dispatch-state.json": "alert dispatch (contract I.3) comes with alerting",
    "telemetry/alerts.jsonl": "alert dispatch (contract I.3) comes with alerting",
}

# --- new beside v1 -------------------------------------------------------------------------------------


def without_position(recorded: Any, found: Any) -> None:
    """A cursor holds the digest of what was read as one more member, `position` (contract L3)."""
    if isinstance(recorded, dict) and "eventsFile" in recorded and "eventLineOffset" in recorded:
        position = found.pop("position", None)
        assert position is None or isinstance(position, dict)


# An agent keeps heartbeat.v1.json for a run whose process lives, and the recorded process id may by chance
# be that of a living process here. This one is above the largest that Linux gives out.
PROCESS = {'"pid":4321': '"pid":99999999', '"pid": 4321': '"pid": 99999999'}

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


def _set(text: str, **members: Any) -> str:
    return json.dumps({**json.loads(text), **members}, indent=2) + "\n"


# (case, number of the step from 0) -> what we do instead.
REMEDIES: dict[tuple[str, int], Remedy] = {
    ("poll-unterminated-tail", 0): _tail_is_not_written_yet,
    ("poll-unterminated-tail", 1): _nothing_new,
    ("snapshot-no-trailing-newline", 0): _last_line_is_the_terminated_one,
    ("health-heartbeat-sources", 0): _lag_is_of_now,
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
