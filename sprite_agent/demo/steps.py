"""What a run can do in one step. Data only: `script` says which and when, `writer` carries them out."""

from collections.abc import Generator
from typing import NamedTuple

from sprite_agent.demo.documents import Document


class Log(NamedTuple):
    """Append a line to events.jsonl. at_once: it belongs to the line before and takes no time."""

    event: str
    iteration: int
    data: Document
    role: str = ""
    status: str = ""
    at_once: bool = False


class State(NamedTuple):
    """Replace state.json. loop_id: "" once the run is over."""

    active: bool
    iteration: int
    loop_id: str


class ActiveRun(NamedTuple):
    """Replace active-run.json."""

    stage: str
    iteration: int
    loop_id: str | None


class Report(NamedTuple):
    """Replace one of the small files that events and entries refer to. name: within the loop's directory."""

    name: str
    text: str


class Entry(NamedTuple):
    """Append an entry to run-summary.json; its `artifacts` are still to be filled."""

    entry: Document


class Request(NamedTuple):
    """Replace approval.json by a pending request."""

    approval: Document


class AwaitDecision(NamedTuple):
    """Wait until approval.json is decided, and send its content in."""


class RemoveApproval(NamedTuple):
    """Remove approval.json."""


class Crash(NamedTuple):
    """Die at once, with everything left as it is."""


Step = Log | State | ActiveRun | Report | Entry | Request | AwaitDecision | RemoveApproval | Crash
Script = Generator[Step, Document | None, None]
