"""What the recording of a local command becomes when the same is done through a service.

Two repositories then: the service's, where the runtime works and the service writes its own rows, and the
manager's, where the manager writes its rows. Contract E.2 and E.4 tell how the rows differ.
"""

import copy
import json
from typing import Any, NamedTuple

from spritemesh import jsontext
from tests.contract.matching import Mismatch

# What v1 calls a failure of the local transport, and how the same is called through a service (G.1).
_LOCAL_FAILURES = ("snapshot_unavailable", "events_unavailable")
# Files of a loop's manager directory that control writes (contract E.4).
CONTROL_FILES = ("intents.jsonl", "telemetry/control.jsonl", "telemetry/control-invocations.jsonl")
IDEMPOTENCY_FILE = "service-idempotency.json"
# Contract D.3: a service makes a key of its own for its row, and its confirmation times cannot be set.
_MADE_KEY = "<key>"
_SERVICE_SECONDS = {"timeoutSeconds": 30, "intervalSeconds": 2}
# Who the service says asked, when the caller does not say (its USER).
_SERVICE_USER = "operator"

Document = Any


class Service(NamedTuple):
    """Where an agent for the case's repository answers. token: "" for an open one."""

    grpc: str
    http: str
    token: str

    def url(self, way: str) -> str:
        return self.http if way == "http" else self.grpc


def say_service(document: Document) -> None:
    """Change a recorded document of the local transport into the one that a service gives."""
    if isinstance(document, list):
        for element in document:
            say_service(element)
    if not isinstance(document, dict):
        return
    for name, value in document.items():
        if name in {"transport", "mode"} and value == "local":
            document[name] = "sprite_service"
        elif name in {"failureCode", "lastFailureCode"} and value in _LOCAL_FAILURES:
            document[name] = "service_request_failed"
        else:
            say_service(value)


def agents_row(row: Document, way: str) -> Document:
    """The row that the service writes: the local one, but for what HTTP cannot say (contract D.3)."""
    row = copy.deepcopy(row)
    if way != "http":
        return row
    row["idempotencyKey"] = _MADE_KEY
    if row["requestedBy"] == "":
        row["requestedBy"] = _SERVICE_USER
    for holder in (row.get("request"), row.get("confirm"), row.get("confirmation", {}).get("outcome")):
        for name, seconds in _SERVICE_SECONDS.items():
            if holder is not None and name in holder:
                holder[name] = seconds
    for holder in (row, row.get("execution", {})):
        for name, named, unnamed in (
            ("command", f"--by {_SERVICE_USER}", "--by ''"),
            ("commandOutput", f"<--by> <{_SERVICE_USER}>", "<--by> <>"),
            ("output", f"<--by> <{_SERVICE_USER}>", "<--by> <>"),
        ):
            if name in holder:
                holder[name] = holder[name].replace(unnamed, named)
    return row


class Spoken(NamedTuple):
    """How a control call went over the wire. intent_row: the recorded row of intents.jsonl."""

    way: str
    # The `command` of the manager's rows: what was asked of whom.
    command: str
    intent_row: Document

    @property
    def answer(self) -> Document:
        """The body that the service answers with (contract D.3)."""
        row = agents_row(self.intent_row, self.way)
        code = {"ambiguous": 2, "failed_command": 1}.get(row["status"], 0)
        return {
            "ok": code == 0,
            "exitCode": code,
            "result": row,
            "replayed": False,
            "traceId": row["traceId"],
        }

    def managers_row(self, row: Document) -> Document:
        """What the manager writes for a recorded local row of any of CONTROL_FILES (contract E.2, E.4).

        `commandOutput` and `output` hold the answer as a document: see `open_answers`.
        """
        answer = self.answer
        row = copy.deepcopy(row)
        say_service(row)
        execution = row.get("execution")
        if execution is None:
            row["exitCode"] = answer["exitCode"]
            if "commandOutput" in row:
                row.update(command=self.command, commandOutput=answer)
            if "confirm" in row:
                row["confirm"] = answer["result"]["confirm"]
        else:
            execution.update(exitCode=answer["exitCode"], command=self.command, output=answer)
            if "outcome" in row["confirmation"]:
                row["confirmation"]["outcome"] = answer["result"]["confirm"]
        return row


def open_answers(found: Document) -> None:
    """Parse the answer in a found row of the manager, which is compact JSON text (contract E.4)."""
    for holder, name in ((found, "commandOutput"), (found.get("execution", {}), "output")):
        text = holder.get(name)
        if isinstance(text, str) and text.startswith("{"):
            document = json.loads(text)
            if jsontext.encode(jsontext.parse(text)).decode() != text:
                raise Mismatch(f"{name}: compact JSON", "", text)
            holder[name] = document
