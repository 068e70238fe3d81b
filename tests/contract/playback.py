"""Plays a golden case and compares every step with the recording."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from manager import catalogs
from spritemesh.ids import new_trace_id
from spritemesh.times import format_utc
from tests.contract import deviations
from tests.contract.cases import FILE_STEPS, Case, Expected, Step
from tests.contract.matching import Mismatch, Run, match_text
from tests.contract.workspace import Outcome, Workspace

# Commands that read a loop, and so can read it through an agent.
READING_COMMANDS = ("reconcile", "loop-run-snapshot", "poll-events")
# What v1 calls a failure of the local transport, and how the same is called through a service (G.1).
_LOCAL_FAILURES = ("snapshot_unavailable", "events_unavailable")


# Every case that has steps of deviations.INSTEAD is about this loop.
MANAGER_FILES = ".superloop/ops-manager/alpha/"


class Service(NamedTuple):
    """Where an agent for the case's repository answers."""

    url: str
    token: str


class Playback:
    """One case in one workspace.

    service: an agent; with `remote`, local steps read the loop through it and are held to the same
    documents. spawn: run each command as a process of its own.
    """

    def __init__(
        self,
        case: Case,
        workspace: Workspace,
        *,
        service: Service | None = None,
        remote: bool = False,
        spawn: bool = False,
    ) -> None:
        known = {
            "<repo>": str(workspace.repo),
            "<default-profiles-file>": catalogs.THRESHOLD_PROFILES,
            # A port where nobody listens: alerts are not sent yet.
            "<sink-url>": "http://127.0.0.1:9",
            **deviations.PROCESS,
        }
        if service is not None:
            known["<service-url>"] = service.url
        self.case = case
        self.workspace = workspace
        self.service = service
        self.remote = remote
        self.spawn = spawn
        self.run = Run(int(time.time()), known)
        # Path -> what stands in the file according to the recording so far.
        self.recorded: dict[str, str | None] = {}
        # Path -> the very text that we put there, as long as no command changed it.
        self.untouched: dict[str, str] = {}
        for path, text in case.inputs.items():
            self._put(path, text)

    def play(self) -> None:
        for number, step in enumerate(self.case.steps):
            self._step(f"{self.case.name} step {number} ({step.command})", number, step)

    def _step(self, where: str, number: int, step: Step) -> None:
        if step.command in FILE_STEPS:
            self._change_files(step)
            return
        assert step.expected is not None, where
        expected = deviations.REMEDIES.get((self.case.name, number), _as_recorded)(step.expected)
        if step.command in deviations.COMMANDS_NOT_YET:
            for path, text in expected.files.items():
                self._put(path, text)
            return
        outcome = self._call(step)
        instead = deviations.INSTEAD.get((self.case.name, number))
        if instead is not None:
            self._check_instead(outcome, instead)
            return
        self._check_outcome(where, expected, outcome)
        for path, text in expected.files.items():
            self.untouched.pop(path, None)
            self.recorded[path] = text
            if _is_not_yet(path):
                self._put(path, text)
        self._check_files(where)

    def _call(self, step: Step) -> Outcome:
        words = [step.command, *(self.run.fill(flag) for flag in step.flags)]
        if self.remote and step.command in READING_COMMANDS:
            assert self.service is not None
            words += ["--service-base-url", self.service.url, "--service-token", self.service.token]
            if step.command == "reconcile":
                words += ["--transport", "sprite_service"]
        env = {name: self.run.fill(value) for name, value in step.env.items()}
        call = self.workspace.spawn if self.spawn else self.workspace.call
        return call(words, env)

    def _check_outcome(self, where: str, expected: Expected, outcome: Outcome) -> None:
        # Where the reference crashes, any failure would do (0.5); ours are always this one.
        code = 1 if expected.exit_code == "<nonzero>" else expected.exit_code
        if outcome.code != code:
            raise Mismatch(f"{where}: exit code, with {outcome.err!r}", code, outcome.code)
        match_text(f"{where}: stdout", expected.stdout, outcome.out, self.run, self._adjust)
        if expected.stderr == "":
            if outcome.err:
                raise Mismatch(f"{where}: stderr", "", outcome.err)
        elif not outcome.err.endswith("\n") or not outcome.err.splitlines()[-1].startswith("error: "):
            raise Mismatch(f"{where}: stderr", expected.stderr, outcome.err)
        for mention in expected.stderr_mentions:
            if self.run.fill(mention) not in outcome.err:
                raise Mismatch(f"{where}: stderr mentions", mention, outcome.err)

    def _check_instead(self, outcome: Outcome, check: Callable[[Any, deviations.Read], None]) -> None:
        """A step that gives something else than v1: exit 0, and what `check` says."""
        assert (outcome.code, outcome.err) == (0, "")
        check(json.loads(outcome.out), lambda name: self.workspace.read(f"{MANAGER_FILES}{name}"))

    def _check_files(self, where: str) -> None:
        """Every file is as recorded, those included that this step did not touch, and no other exists."""
        for path in sorted(self.workspace.files() | set(self.recorded)):
            if _is_not_yet(path):
                continue
            found, recorded = self.workspace.read(path), self.recorded.get(path)
            if recorded is None or found is None:
                if recorded is not found:
                    raise Mismatch(f"{where}: {path}", recorded, found)
            elif path not in self.untouched:
                match_text(f"{where}: {path}", recorded, found, self.run, self._adjust)
            elif self.untouched[path] != found:
                raise Mismatch(f"{where}: {path}, which no command may change", self.untouched[path], found)

    def _adjust(self, recorded: Any, found: Any) -> None:
        deviations.without_position(recorded, found)
        if isinstance(recorded, dict) and "artifacts" in recorded:
            self._measure(recorded["artifacts"])
        if self.remote:
            _say_service(recorded)

    def _measure(self, artifacts: dict[str, Any]) -> None:
        """Size and digest of a file that holds placeholders are those that it has here."""
        for artifact in artifacts.values():
            if artifact["sha256"] == "<sha256>":
                data = (self.workspace.repo / artifact["path"]).read_bytes()
                artifact.update(sizeBytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _change_files(self, step: Step) -> None:
        for path, text in step.files.items():
            before = (self.recorded.get(path) or "") if step.command == "append" else ""
            self._put(path, before + text)
        for path in step.paths:
            self._put(path, None)

    def _put(self, path: str, text: str | None) -> None:
        """Make the file what was recorded, with a value for each placeholder; None removes it."""
        self.recorded[path] = text
        self.untouched.pop(path, None)
        if text is None:
            self.workspace.delete(path)
            return
        values = {
            '"<int>"': "0",
            "<now>": format_utc(time.time()),
            "<uuid>": new_trace_id(),
            "<key>": "cancel-1-1",
        }
        text = self.run.fill(text)
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        self.workspace.write(path, text)
        self.untouched[path] = text


def _as_recorded(expected: Expected) -> Expected:
    return expected


def _is_not_yet(path: str) -> bool:
    return any(path.endswith(f"/{name}") for name in deviations.FILES_NOT_YET)


def _say_service(document: Any) -> None:
    """Change a recorded document of the local transport into the one that a service gives."""
    if isinstance(document, list):
        for element in document:
            _say_service(element)
    if not isinstance(document, dict):
        return
    for name, value in document.items():
        if name in {"transport", "mode"} and value == "local":
            document[name] = "sprite_service"
        elif name in {"failureCode", "lastFailureCode"} and value in _LOCAL_FAILURES:
            document[name] = "service_request_failed"
        else:
            _say_service(value)
