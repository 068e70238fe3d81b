"""The published JSON Schemas: v1's own recordings and everything that we emit satisfy them (L29, M)."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from spritemesh import jsontext
from spritemesh.bridge import schemas
from tests.contract import cases
from tests.contract.playback import Playback
from tests.contract.workspace import Outcome, Workspace
from tests.harness.spans import span, span_id

EXACT = ("loop_run_snapshot", "loop_run_event")
GROWING = tuple(name for name in schemas.SCHEMA_NAMES if name not in EXACT)

# Command -> what it prints when it succeeds.
PRINTED = {
    "loop-run-snapshot": "loop_run_snapshot",
    "poll-events": "loop_run_event",
    "project-state": "state",
    "reconcile": "state",
    "health": "health",
    "profile-drift": "profile_drift",
    "status": "status",
}
STORED = {
    "cursor.json": "cursor",
    "ops-manager.cursor.json": "cursor",
    "state.json": "state",
    "health.json": "health",
    "heartbeat.json": "heartbeat",
    "sequence-state.json": "sequence_state",
    "transport-health.json": "transport_health",
    "profile-drift.json": "profile_drift",
}
# Members that are documents of their own.
NESTED = {"health": "health", "sequence": "sequence_state", "drift": "profile_drift"}


class Emitted(NamedTuple):
    """A document, and where it came from."""

    schema: str
    where: str
    document: Any


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schemas.load_schema(name))


def problems(name: str, document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(document)]


def printed(command: str, code: int, out: str) -> Iterator[tuple[str, Any]]:
    """Schema and document of each document on standard output."""
    if command == "reconcile" and code == 1 and out:
        yield "health", jsontext.parse(out)
    elif command in PRINTED and code == 0 and out:
        texts = out.splitlines() if command == "poll-events" else [out]
        for text in texts:
            yield PRINTED[command], jsontext.parse(text)


def stored(path: str) -> str | None:
    """The schema of a file at a path within a repository; None for files that have none."""
    parts = path.split("/")
    own = "ops-manager" in parts or parts[-1] == "ops-manager.cursor.json"
    return STORED.get(parts[-1]) if own else None


def with_nested(found: Emitted) -> Iterator[Emitted]:
    yield found
    if found.schema == "state":
        for member, name in NESTED.items():
            if found.document.get(member):
                yield Emitted(name, f"{found.where} {member}", found.document[member])
    if found.schema == "state" and found.document["evidence"]["lastEventEnvelope"]:
        event = found.document["evidence"]["lastEventEnvelope"]
        yield Emitted("loop_run_event", f"{found.where} last event", event)


class Watched(Workspace):
    """A workspace that keeps every document that a command prints or writes."""

    def __init__(self, root: Path, name: str, emitted: list[Emitted]) -> None:
        super().__init__(root)
        self._name = name
        self._emitted = emitted

    def call(self, words: Sequence[str], env: Mapping[str, str]) -> Outcome:
        before = self._texts()
        outcome = super().call(words, env)
        where = f"{self._name}: {' '.join(words[:1])}"
        for name, document in printed(words[0], outcome.code, outcome.out):
            self._emitted.append(Emitted(name, where, document))
        for path, text in self._texts().items():
            name_of_file = stored(path)
            if name_of_file is not None and text != before.get(path):
                self._emitted.append(Emitted(name_of_file, f"{where} {path}", jsontext.parse(text)))
        return outcome

    def _texts(self) -> dict[str, str]:
        return {path: self.read(path) or "" for path in self.files() if stored(path)}


def _of(emitted: list[Emitted], name: str) -> list[Emitted]:
    return [found for each in emitted for found in with_nested(each) if found.schema == name]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[Emitted]:
    """What our commands emit over all the golden cases that need no service, scripted ones included: those
    break the contract on purpose."""
    emitted: list[Emitted] = []
    for name in cases.names():
        case = cases.load(name)
        if case.service is None and not cases.has_scripted_service(case):
            Playback(case, Watched(tmp_path_factory.mktemp("case"), name, emitted)).play()
    return emitted


@pytest.fixture(scope="module")
def recorded() -> list[Emitted]:
    """What v1 emitted over all the golden cases, with a value for each placeholder."""
    emitted: list[Emitted] = []
    for name in cases.names():
        for step in cases.load(name).steps:
            if step.expected is None or not isinstance(step.expected.exit_code, int):
                continue
            where = f"{name}: {step.command}"
            out = _filled(step.expected.stdout)
            for schema, document in printed(step.command, step.expected.exit_code, out):
                emitted.append(Emitted(schema, where, document))
            for path, text in step.expected.files.items():
                schema_of_file = stored(path)
                if schema_of_file is not None and text is not None:
                    emitted.append(Emitted(schema_of_file, f"{where} {path}", json.loads(_filled(text))))
    return emitted


def _filled(text: str) -> str:
    known = {
        '"observed":"<int>"': '"observed":"7"',
        '"<int>"': "7",
        '"<mtime>"': "1710147600",
        "<sha256>": "0" * 64,
    }
    for placeholder, value in known.items():
        text = text.replace(placeholder, value)
    return re.sub("<now[+-]?[0-9]*>", "2024-03-11T09:00:00Z", text)


# --- documents satisfy the schemas ----------------------------------------------------------------------


@pytest.mark.parametrize("name", schemas.SCHEMA_NAMES)
def test_every_document_that_we_emit_satisfies_its_schema(name: str, ours: list[Emitted]) -> None:
    found = _of(ours, name)
    assert found
    check = validator(name)
    for each in found:
        assert not [error.message for error in check.iter_errors(each.document)], each.where


@pytest.mark.parametrize("name", schemas.SCHEMA_NAMES)
def test_every_document_that_v1_was_recorded_with_satisfies_its_schema(
    name: str, recorded: list[Emitted]
) -> None:
    # There, v1 passes on what a scripted service says, which is no v1 event.
    found = [each for each in _of(recorded, name) if "reconcile-sequence-violations" not in each.where]
    assert found
    check = validator(name)
    for each in found:
        assert not [error.message for error in check.iter_errors(each.document)], each.where


@pytest.mark.parametrize(
    "line",
    [
        {"event": "a", "timestamp": "t", "data": [1, {"deep": None}]},
        {"event": "a", "timestamp": "t", "data": False},
        {"event": "a", "timestamp": "t", "data": 0, "iteration": -2.5, "run_id": ""},
        {"type": "a", "timestamp": 5, "iteration": "1e3", "run_id": 0, "message": {"x": 1}},
        {"event": "a", "timestamp": "t", "iteration": 2**70, "data": "", "role": ["x"], "status": 7},
    ],
    ids=["array-payload", "false-payload", "negative-fraction", "other-kinds", "huge-iteration"],
)
def test_event_of_an_unusual_line_satisfies_the_schema(workspace: Workspace, line: dict[str, Any]) -> None:
    workspace.write(".superloop/loops/a/events.jsonl", json.dumps(line) + "\n")
    flags = ["--repo", str(workspace.repo), "--loop", "a"]
    for command in ("poll-events", "loop-run-snapshot"):
        outcome = workspace.call([command, *flags], {})
        assert outcome.code == 0, outcome.err
        for name, document in printed(command, outcome.code, outcome.out):
            assert problems(name, document) == []


def test_snapshot_of_unusual_files_satisfies_the_schema(workspace: Workspace) -> None:
    entry = {"run_id": "r", "iteration": -1.5, "gates": {"lifecycle": "pass", "new": [1]}, "stuck": "2/3"}
    files = {
        "loops/a/events.jsonl": "",
        "loops/a/run-summary.json": json.dumps({"entries": [entry]}),
        "loops/a/heartbeat.v1.json": "[1e999]",
        "active-run.json": '"text"',
    }
    for path, text in files.items():
        workspace.write(f".superloop/{path}", text)
    outcome = workspace.call(["loop-run-snapshot", "--repo", str(workspace.repo), "--loop", "a"], {})
    document = jsontext.parse(outcome.out)
    assert document["health"]["gates"] == entry["gates"]
    assert document["run"]["iteration"] == -1.5
    assert problems("loop_run_snapshot", document) == []


def test_trace_of_passes_and_their_escalations_satisfies_its_schema(workspace: Workspace) -> None:
    workspace.write(".superloop/loops/a/events.jsonl", '{"event":"old","timestamp":"2024-01-01T00:00:00Z"}\n')
    flags = ["--repo", str(workspace.repo)]
    for loop in ("a", "b"):
        workspace.call(["reconcile", *flags, "--loop", loop, "--trace-id", "t"], {})
    outcome = workspace.call(["trace", "t", *flags], {})
    assert outcome.code == 0, outcome.err
    document = jsontext.parse(outcome.out)
    assert problems("trace", document) == []
    schema = schemas.load_schema("trace")
    assert list(document) == [name for name in schema["properties"] if name in document]
    for member in schema["required"]:
        assert problems("trace", {name: value for name, value in document.items() if name != member})
    document["steps"][0]["steps"][0]["at"] = "2024-01-01T00:00:00Z"
    assert problems("trace", document)


def test_trace_of_the_runtimes_spans_satisfies_its_schema(workspace: Workspace) -> None:
    workspace.write("trace.jsonl", (span(2, parent=1) + span(1)).decode())
    outcome = workspace.call(["trace", span_id(1), "--repo", str(workspace.repo)], {})
    assert problems("trace", jsontext.parse(outcome.out)) == []


# --- schemas refuse what is no such document ------------------------------------------------------------


def _levels(schema: Any, document: Any, root: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of the objects of `document` whose members the schema lists."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if not isinstance(document, dict) or "properties" not in schema:
        return
    yield path
    for member, inner in schema["properties"].items():
        if member in document and isinstance(inner, dict):
            yield from _levels(inner, document[member], root, (*path, member))


def _at(document: Any, path: tuple[str, ...]) -> dict[str, Any]:
    for name in path:
        document = document[name]
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", EXACT)
def test_envelope_has_exactly_its_members_at_every_level_of_ours(name: str, ours: list[Emitted]) -> None:
    schema, document = schemas.load_schema(name), _of(ours, name)[0].document
    levels = list(_levels(schema, document, schema))
    assert len(levels) > 5
    for path in levels:
        for member in _at(document, path):
            less = copy.deepcopy(document)
            del _at(less, path)[member]
            assert problems(name, less), (path, member)
        more = copy.deepcopy(document)
        _at(more, path)["further"] = 1
        assert problems(name, more), path


@pytest.mark.parametrize("name", GROWING)
def test_manager_document_may_grow_but_not_lose_its_members(name: str, ours: list[Emitted]) -> None:
    schema, document = schemas.load_schema(name), _of(ours, name)[0].document
    for path in _levels(schema, document, schema):
        more = copy.deepcopy(document)
        _at(more, path)["further"] = 1
        assert problems(name, more) == [], path
    for member in schema["required"]:
        less = copy.deepcopy(document)
        del less[member]
        assert problems(name, less), member


@pytest.mark.parametrize("name", schemas.SCHEMA_NAMES)
def test_members_stand_in_the_order_that_we_emit_them_in(name: str, ours: list[Emitted]) -> None:
    schema = schemas.load_schema(name)
    for each in _of(ours, name):
        for path in _levels(schema, each.document, schema):
            level: Any = schema
            for member in path:
                level = level["properties"][member]
                if "$ref" in level:
                    level = schema["$defs"][level["$ref"].rsplit("/", 1)[1]]
            listed = list(level["properties"])
            known = [member for member in _at(each.document, path) if member in listed]
            # What a failed pass adds to an old state goes to its end (contract G.2).
            if name != "state" or path:
                assert known == [member for member in listed if member in known], (each.where, path)


@pytest.mark.parametrize(
    ("name", "path", "wrong"),
    [
        ("loop_run_snapshot", ("schemaVersion",), "v2"),
        ("loop_run_snapshot", ("emittedAt",), "2024-03-11T09:00:00.5Z"),
        ("loop_run_snapshot", ("run", "status"), "cancelled"),
        ("loop_run_snapshot", ("run", "iteration"), "7"),
        ("loop_run_snapshot", ("run", "summary"), []),
        ("loop_run_snapshot", ("artifacts", "events", "sha256"), "ABC"),
        ("loop_run_snapshot", ("artifacts", "events", "exists"), False),
        ("loop_run_snapshot", ("health", "lastEventName"), ""),
        ("loop_run_snapshot", ("cursor", "eventLineOffset"), -1),
        ("loop_run_event", ("sequence", "value"), 0),
        ("loop_run_event", ("event", "name"), ""),
        ("loop_run_event", ("event", "role"), ""),
        ("loop_run_event", ("event", "payload"), False),
        ("loop_run_event", ("event", "raw"), None),
        ("cursor", ("eventLineOffset",), "4"),
        ("state", ("projection", "active"), False),
        ("state", ("transition", "triggeringSignal"), "event"),
        ("health", ("status",), "critically ill"),
        ("heartbeat", ("heartbeatLagSeconds",), -1),
        ("sequence_state", ("driftActive",), None),
        ("transport_health", ("failureStreak",), 1.5),
        ("profile_drift", ("mismatchStreak",), None),
        ("status", ("files", "stateFile"), ""),
    ],
)
def test_wrong_value_is_refused(name: str, path: tuple[str, ...], wrong: Any, ours: list[Emitted]) -> None:
    document = copy.deepcopy(_of(ours, name)[0].document)
    assert problems(name, document) == []
    _at(document, path[:-1])[path[-1]] = wrong
    assert problems(name, document)


# --- the files and their loader -------------------------------------------------------------------------


@pytest.mark.parametrize("name", schemas.SCHEMA_NAMES + schemas.LATER_NAMES)
def test_schema_is_valid_and_says_which_document_it_is_of(name: str) -> None:
    schema = schemas.load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:superloop:ops:v1:{name}"
    assert schema["title"]
    assert schema["description"]


def test_every_schema_file_has_a_name_and_every_name_a_file() -> None:
    files = {path.name for path in Path(schemas.__file__).parent.glob("*.json")}
    assert files == {f"{name}.v1.schema.json" for name in schemas.SCHEMA_NAMES + schemas.LATER_NAMES}


@pytest.mark.parametrize("name", ["", "loop_run", "../schemas/health", "health.v1"])
def test_loader_refuses_a_name_that_is_none(name: str) -> None:
    with pytest.raises(KeyError):
        schemas.load_schema(name)


def test_loader_gives_a_copy_that_may_be_changed() -> None:
    schemas.load_schema("health")["title"] = "changed"
    assert schemas.load_schema("health")["title"] != "changed"


def test_schemas_load_without_importlib_resources() -> None:
    code = (
        "import sys; from spritemesh.bridge.schemas import load_schema; load_schema('status');"
        "sys.exit('importlib.resources' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False, timeout=30).returncode == 0
