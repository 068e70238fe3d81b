"""The golden cases: what v1 printed, returned and left on disk, recorded from its reference.

One file in golden/ is one case: a small repository (`inputs`), steps run on it in order, and what each
step gave. `<...>` in texts are placeholders (see matching.py). Contract sections 0 to J.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

GOLDEN = Path(__file__).parent / "golden"

# Steps that change files and run nothing.
FILE_STEPS = ("write", "append", "delete")


class Expected(NamedTuple):
    """What a command gave. `files`: path -> whole text of every file that it changed, None: removed.

    sink_requests: POSTs that the case's sink got; None where the recording does not tell.
    """

    exit_code: int | str
    stdout_format: str
    stdout: str
    stderr: str
    stderr_mentions: list[str]
    files: dict[str, str | None]
    sink_requests: list[dict[str, Any]] | None = None


class HttpRequest(NamedTuple):
    """A request of an `http` step. path: with its query. body: None for none."""

    method: str
    path: str
    headers: dict[str, str]
    body: str | None


class HttpExpected(NamedTuple):
    """What an `http` step gave. `files`: as those of Expected."""

    status: int
    content_type: str
    body: str
    files: dict[str, str | None]


class Step(NamedTuple):
    """One step. `expected` is that of a command; `request` and `answered` are those of an `http` step."""

    command: str
    flags: list[str]
    env: dict[str, str]
    files: dict[str, str]
    paths: list[str]
    expected: Expected | None
    request: HttpRequest | None = None
    answered: HttpExpected | None = None


class ServiceFacts(NamedTuple):
    """How the service of a case was started. token: "" for an open one. env: for its process."""

    token: str
    env: dict[str, str]


class Sink(NamedTuple):
    """The script of a case's sink: answers to POSTs, and to GETs by path, as tests/harness/receiver.py
    takes them."""

    responses: list[dict[str, Any]]
    gets: dict[str, list[dict[str, Any]]]


class Case(NamedTuple):
    """One recorded case. `quirks`: ids of contract L that the recording shows. slow: waits about 30 s."""

    name: str
    area: str
    inputs: dict[str, str]
    modes: dict[str, str]
    service: ServiceFacts | None
    sink: Sink | None
    quirks: list[str]
    slow: bool
    steps: list[Step]


def load(name: str) -> Case:
    data: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    service, sink = data.get("service"), data.get("sink")
    return Case(
        name=data["name"],
        area=data["area"],
        inputs=data["inputs"],
        modes=data.get("modes") or {},
        service=None if service is None else ServiceFacts(service.get("token", ""), service.get("env") or {}),
        sink=None if sink is None else Sink(sink.get("responses") or [], sink.get("gets") or {}),
        quirks=data.get("quirks") or [],
        slow=bool(data.get("slow")),
        steps=[_step(step) for step in data["steps"]],
    )


def has_scripted_service(case: Case) -> bool:
    """Whether the case's sink stands in for a service."""
    return case.sink is not None and bool(case.sink.gets)


def names() -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob("*.json"))


def _step(data: dict[str, Any]) -> Step:
    expect = data.get("expect")
    step = Step(
        command=data["command"],
        flags=data.get("flags") or [],
        env=data.get("env") or {},
        files=data.get("files") or {},
        paths=data.get("paths") or [],
        expected=None,
    )
    if expect is None:
        return step
    files = expect["files_after"]
    if step.command == "http":
        request = data["request"]
        return step._replace(
            request=HttpRequest(request["method"], request["path"], request["headers"], request["body"]),
            answered=HttpExpected(expect["status"], expect["content_type"], expect["body"], files),
        )
    expected = Expected(
        exit_code=expect["exit_code"],
        stdout_format=expect["stdout_format"],
        stdout=expect["stdout"],
        stderr=expect["stderr"],
        stderr_mentions=expect.get("stderr_mentions") or [],
        files=files,
        sink_requests=expect.get("sink_requests"),
    )
    return step._replace(expected=expected)
