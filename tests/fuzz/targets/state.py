"""What the manager reads back: cursor, documents, telemetry, the registry of a fleet, retries of alerts.

An input holds some of these files, each after its name. Commands that read them run in this process, and end
in order: with success, or with one error line of a reason of the table. A file that stands for something that
cannot be derived again (the cursor, the registry, escalations, audits) is never lost: an unusable one stays.
"""

import io
import re
import shutil
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from manager.cli import main
from manager.core.live import LiveLoop
from manager.fleet import presence
from manager.fleet.registry import endpoint_of, read_registry
from manager.store import LoopStore, loop_files
from spritemesh import traceindex
from spritemesh.errors import OpsError
from tests.fuzz.checks import check_json, check_reason, check_refusal
from tests.fuzz.driver import Run, Target
from tests.fuzz.sections import split
from tests.harness.loops import Repo, events
from tests.unit.core.test_observe import SETTINGS

_OPS = ".superloop/ops-manager/alpha/"
_FLEET = ".superloop/ops-manager/fleet/"
# Name in an input -> place in the repository.
FILES = {
    **{
        name: _OPS + name
        for name in (
            "cursor.json",
            "state.json",
            "health.json",
            "heartbeat.json",
            "sequence-state.json",
            "profile-drift.json",
            "session.json",
            "intents.jsonl",
            "escalations.jsonl",
            "alert-dispatch-state.json",
            "alert-retries.json",
            "telemetry/transport-health.json",
            "telemetry/reconcile.jsonl",
            "telemetry/control.jsonl",
            "telemetry/quarantine.jsonl",
            "telemetry/profile-drift.jsonl",
        )
    },
    "registry.v1.json": _FLEET + "registry.v1.json",
    "manager.json": _FLEET + "manager.json",
    "index.jsonl": traceindex.INDEX_FILE,
    "alert-sinks.json": "alert-sinks.json",
    "threshold-profiles.json": "threshold-profiles.json",
}
_WORDS = (
    b'"schemaVersion":"v1"', b'"eventLineOffset":', b'"position":', b'"offset":', b'"line":', b'"logDigest":',
    b'"firstLineDigest":', b'"lastSnapshotValue":', b'"events":{"last":', b'"snapshot":{"current":',
    b'"loops":[', b'"loopId":"alpha"', b'"transport":"sprite_service"', b'"service":{"baseUrl":"grpc://127.0.0.1:1"}',
    b'"tokenEnv":"HOME"', b'"retryAttempts":', b'"retryBackoffSeconds":', b'"category":"health"',
    b'"status":', b'"entries":[', b'"failureStreak":', b'"evidence":{"lastEventEnvelope":', b'"profiles":',
    b'"sinks":',
    *(b"\n--- " + name.encode() + b"\n" for name in FILES),
)  # fmt: skip
# Commands without --repo and --loop; a word that names a file of an input stands for its place.
_HEALTH = (
    "health",
    *("--state-file", "state.json", "--heartbeat-state-file", "heartbeat.json"),
    *("--sequence-state-file", "sequence-state.json", "--intents-file", "intents.jsonl"),
    *("--transport-health-file", "telemetry/transport-health.json"),
)
_PROFILE = ("threshold-profile", "--profiles-file", "threshold-profiles.json")
_SINKS = ("alert-sink-config", "--config-file", "alert-sinks.json", "--category", "health_critical")
_ERROR = re.compile(r"^error: .* \[([a-z0-9_]+)\]$")
_LOG = events(1, 3)


class _Manager:
    def __init__(self, directory: Path) -> None:
        repo = Repo(directory / "repo")
        repo.loop("alpha", _LOG)
        self._root = repo.root
        self._paths = loop_files(str(self._root), "alpha")

    def run(self, data: bytes) -> Iterator[Hashable]:
        shutil.rmtree(self._root / ".superloop/ops-manager", ignore_errors=True)
        found = {name: content for name, content in split(data) if name in FILES}
        for name, content in found.items():
            path = self._root / FILES[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield from self._registry(found)
        yield from self._session()
        for command in self._commands(found):
            yield command[0], self._command(*command)
        if "cursor.json" in found:
            yield from self._cursor(found["cursor.json"])
        for name in ("registry.v1.json", "escalations.jsonl", "intents.jsonl"):
            if name in found:
                kept = (self._root / FILES[name]).read_bytes()
                assert kept.startswith(found[name]), f"{name} was lost"

    def _registry(self, found: dict[str, bytes]) -> Iterator[Hashable]:
        if "registry.v1.json" in found:
            try:
                registry = read_registry(str(self._root / FILES["registry.v1.json"]))
                yield "registry", len(registry.loops)
                for entry in registry.loops:
                    endpoint_of(entry, {"TOKEN": "secret", "OPS_MANAGER_SERVICE_TOKEN": "secret"})
            except OpsError as error:
                yield "registry", check_refusal(error, "registry.v1.json", "loop '", 'loop "')
        if "manager.json" in found:
            try:
                yield "manager", bool(presence.find(str(self._root)))
            except OpsError as error:
                yield "manager", check_refusal(error)

    def _session(self) -> Iterator[Hashable]:
        """As a live session begins with the same files, of which it tolerates every damage."""
        store = LoopStore(self._paths)
        known, history = store.read_standing(), store.read_history(20)
        loop = LiveLoop(SETTINGS, known, 0.0)
        loop.remember(history)
        loop.tick(1.0)
        yield "session", len(known.damaged_documents), history.damaged_lines > 0
        step = loop.step(2.0)
        yield "session", *step.outcome.health["reasonCodes"]

    def _commands(self, found: dict[str, bytes]) -> Iterator[list[str]]:
        """Those that read what was found, a pass in any case."""
        repo = ["--repo", str(self._root)]
        loop = [*repo, "--loop", "alpha"]
        yield ["reconcile", "--alerts-enabled", "false", *loop]
        yield ["status", *loop]
        if any(name.startswith("telemetry/") for name in found):
            yield ["telemetry-summary", *loop]
            yield ["trace", "t-1", *repo]
        if "index.jsonl" in found:
            yield ["trace", "--recent", "5", *repo]
        if found.keys() & {"escalations.jsonl", "alert-dispatch-state.json", "alert-retries.json"}:
            # Of the catalog that is built in no sink is on: nothing is sent.
            yield ["alert-dispatch", *loop]
        for reads, words in (
            ("state.json", _HEALTH),
            ("threshold-profiles.json", _PROFILE),
            ("alert-sinks.json", _SINKS),
        ):
            if reads in found:
                yield [str(self._root / FILES[word]) if word in FILES else word for word in words]

    @staticmethod
    def _command(name: str, *words: str) -> Hashable:
        """Run a command; the reason that it failed for, "" when it did not."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            code = main([name, *words])
        out.seek(0)
        err.seek(0)
        # Not splitlines, for which a document may hold what ends a line.
        for line in filter(None, out.read().split("\n")):
            check_json(line.encode())
        said = err.read().splitlines()
        if code == 0 or not said:
            return ""
        told = _ERROR.match(said[-1])
        assert told, f"{name} ended with {code} and said: {said}"
        assert told[1] not in {"internal_error", "agent_fault"}, f"{name}: {said[-1]}"
        assert len(said) == 1, said
        check_reason(told[1])
        return str(told[1])

    def _cursor(self, before: bytes) -> Iterator[Hashable]:
        """After a pass: a cursor that fits, or the very file that did not."""
        path = self._root / FILES["cursor.json"]
        try:
            cursor = LoopStore(self._paths).read_cursor()
        except OpsError as error:
            check_refusal(error, "cursor.json")
            assert path.read_bytes() == before, "an unusable cursor was replaced"
            yield "cursor", error.reason
            return
        yield "cursor", path.read_bytes() == before, cursor.place.line


@contextmanager
def _opened(directory: Path) -> Iterator[Run]:
    yield _Manager(directory).run


TARGET = Target("state", _opened, _WORDS)
