"""Plays a golden case and compares every step with the recording."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from manager import catalogs
from spritemesh.ids import new_trace_id
from spritemesh.times import format_utc
from tests.contract import deviations
from tests.contract.cases import FILE_STEPS, Case, Expected, ServiceFacts, Step
from tests.contract.matching import Mismatch, Run, match_text
from tests.contract.service import (
    CONTROL_FILES,
    IDEMPOTENCY_FILE,
    Service,
    Spoken,
    agents_row,
    open_answers,
    say_service,
)
from tests.contract.workspace import Outcome, Workspace, ask
from tests.harness.receiver import Receiver, Request, answers, receiving

WAYS = ("local", "grpc", "http")
# Commands that read a loop, and so can read it through an agent.
READING_COMMANDS = ("reconcile", "loop-run-snapshot", "poll-events", "confirm-intent")
# Every case that has steps of deviations.INSTEAD is about this loop; so is every one with control.
MANAGER_FILES = ".superloop/ops-manager/alpha/"

# Starts a service for the case's repository, and ends the one before it.
StartService = Callable[[ServiceFacts], Service]


class Playback:
    """One case in one workspace.

    way: of WAYS; other than local, steps that read or control a loop do so through an agent, and are held
    to the same documents. start: starts agents, for such ways and for cases with a service of their own.
    spawn: run each command as a process of its own.
    """

    def __init__(
        self,
        case: Case,
        workspace: Workspace,
        *,
        way: str = "local",
        start: StartService | None = None,
        spawn: bool = False,
    ) -> None:
        self.case = case
        self.workspace = workspace
        self.way = way
        self.start = start
        self.spawn = spawn
        # Path -> what stands in the file according to the recording so far.
        self.recorded: dict[str, str | None] = {}
        # Path -> the very text that we put there, as long as no command changed it.
        self.untouched: dict[str, str] = {}
        # The same for the manager's own repository, where control through a service writes its rows.
        self.managers: dict[str, str] = {}
        self.run = Run(int(time.time()), {})
        self.service: Service | None = None
        self._served: ServiceFacts | None = None
        self.sink: Receiver | None = None

    def play(self) -> None:
        known = {
            "<repo>": str(self.workspace.repo),
            "<default-profiles-file>": catalogs.THRESHOLD_PROFILES,
            "<default-sinks-file>": catalogs.ALERT_SINKS,
            **deviations.PROCESS,
        }
        self.run = Run(int(time.time()), known)
        with self._receiver() as sink:
            self.sink = sink
            if sink is not None:
                known["<sink-url>"] = sink.url
            else:
                # A port where nobody listens.
                known["<sink-url>"] = "http://127.0.0.1:9"
            for path, text in self.case.inputs.items():
                self._put(path, text)
            for path, mode in self.case.modes.items():
                self.workspace.set_mode(path, int(mode, 8))
            if self.case.service is not None:
                self._serve(self.case.service)
            for number, step in enumerate(self.case.steps):
                self._step(f"{self.case.name} step {number} ({step.command})", number, step)

    # --- what stands around the case ------------------------------------------------------------------

    @contextmanager
    def _receiver(self) -> Iterator[Receiver | None]:
        script = self.case.sink
        if script is None:
            yield None
            return
        with receiving() as sink:
            # The answers may hold its own address.
            filled = Run(self.run.started, {**self.run.known, "<sink-url>": sink.url})
            sink.responses = answers(_filled(script.responses, filled))
            sink.gets = {path: answers(_filled(items, filled)) for path, items in script.gets.items()}
            yield sink

    def _serve(self, facts: ServiceFacts) -> Service:
        """The running service of these facts; started if it is not the one that runs."""
        if self.service is None or facts != self._served:
            assert self.start is not None, "the case needs agents"
            env = {name: self.run.fill(value) for name, value in facts.env.items()}
            self.service, self._served = self.start(ServiceFacts(facts.token, env)), facts
            self.run = self.run.knowing({"<service-url>": self.service.url(self._service_way)})
        return self.service

    @property
    def _through_agent(self) -> bool:
        """Whether steps recorded locally go through an agent; a case with a service names it in its flags."""
        return self.way != "local" and self.case.service is None

    @property
    def _service_way(self) -> str:
        """v1's own services speak HTTP."""
        return "http" if self.way == "local" else self.way

    # --- steps ----------------------------------------------------------------------------------------

    def _step(self, where: str, number: int, step: Step) -> None:
        if step.command in FILE_STEPS:
            self._change_files(step)
            return
        if step.request is not None:
            self._ask(where, step)
            return
        assert step.expected is not None, where
        expected = deviations.REMEDIES.get((self.case.name, number), _as_recorded)(step.expected)
        if self._through_agent and step.command == "control" and expected.stdout_format != "empty":
            self._control_through_service(where, step, expected)
            return
        outcome = self._call(step)
        instead = deviations.instead(self.case.name, number, self.way)
        if instead is not None:
            self._check_instead(outcome, instead)
            return
        self._check_outcome(where, expected, outcome, self._adjust)
        self._take(expected.files)
        self._check_files(where)
        self._check_sink(where, expected)

    def _call(self, step: Step) -> Outcome:
        words = [step.command, *(self.run.fill(flag) for flag in step.flags)]
        if self._through_agent and step.command in READING_COMMANDS:
            words += self._service_words(self._serve(self._served or ServiceFacts("tok", {})))
            if step.command == "reconcile":
                words += ["--transport", "sprite_service"]
        outcome = self._run_command(words, {name: self.run.fill(value) for name, value in step.env.items()})
        if self._through_agent and step.command in deviations.NOTES_THROUGH_AN_AGENT:
            lines = outcome.err.splitlines(keepends=True)
            outcome = outcome._replace(err="".join(line for line in lines if not line.startswith("note: ")))
        return outcome

    def _service_words(self, service: Service) -> list[str]:
        words = ["--service-base-url", service.url(self.way)]
        return [*words, "--service-token", service.token] if service.token else words

    def _run_command(self, words: Sequence[str], env: dict[str, str]) -> Outcome:
        call = self.workspace.spawn if self.spawn else self.workspace.call
        return call(words, env)

    # --- control through a service --------------------------------------------------------------------

    def _control_through_service(self, where: str, step: Step, expected: Expected) -> None:
        """The service runs the command in the case's repository; the manager knows another one."""
        service = self._serve(ServiceFacts("tok", step.env))
        manager = str(self.workspace.manager)
        words = ["control", *(manager if flag == "<repo>" else self.run.fill(flag) for flag in step.flags)]
        words += ["--transport", "sprite_service", *self._service_words(service)]
        outcome = self._run_command(words, {})
        # The same words for both ways: rows do not depend on the way.
        command = f"POST {service.url(self.way)}/ops/control"
        spoken = Spoken(self.way, command, json.loads(expected.stdout))
        told = expected._replace(stdout=_line(spoken.managers_row(spoken.intent_row)))
        self._check_outcome(where, told, outcome, _open_both)
        self._take(
            {
                path: _each_row(text, lambda row: agents_row(row, self.way)) if _is_control(path) else text
                for path, text in expected.files.items()
            }
        )
        self._check_files(where)
        for name in CONTROL_FILES:
            rows = expected.files[f"{MANAGER_FILES}{name}"] or ""
            last = json.loads(rows.splitlines()[-1])
            self.managers[name] = self.managers.get(name, "") + _line(spoken.managers_row(last))
        self._check_managers_files(where)
        if self.way == "http":
            self._check_remembered(where, json.loads(outcome.out))

    def _check_managers_files(self, where: str) -> None:
        root = self.workspace.manager
        found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        found = {path for path in found if not deviations.is_beside_v1(path)}
        wanted = {f"{MANAGER_FILES}{name}" for name in self.managers}
        if found != wanted:
            raise Mismatch(f"{where}: files of the manager", wanted, found)
        for name, text in self.managers.items():
            content = (root / MANAGER_FILES / name).read_text()
            match_text(f"{where}: {name} of the manager", text, content, self.run, _open_both)

    def _check_remembered(self, where: str, printed: Any) -> None:
        """The service keeps its answer under the caller's key (contract D.4)."""
        kept = json.loads(self.workspace.read(f"{MANAGER_FILES}{IDEMPOTENCY_FILE}") or "{}")
        answer = json.loads(printed["commandOutput"])
        if kept.get(printed["idempotencyKey"]) != answer:
            raise Mismatch(f"{where}: {IDEMPOTENCY_FILE}", answer, kept)

    # --- requests -------------------------------------------------------------------------------------

    def _ask(self, where: str, step: Step) -> None:
        """An `http` step: the case's service answers as recorded."""
        assert step.request is not None
        assert step.answered is not None
        assert self.service is not None, where
        wanted = step.answered
        request = step.request._replace(
            path=self.run.fill(step.request.path),
            body=None if step.request.body is None else self.run.fill(step.request.body),
        )
        answer = ask(self.service.http, request)
        if answer.status != wanted.status:
            raise Mismatch(f"{where}: status, with {answer.body!r}", wanted.status, answer.status)
        if answer.content_type != wanted.content_type:
            raise Mismatch(f"{where}: content type", wanted.content_type, answer.content_type)
        if not answer.body.isascii():
            raise Mismatch(f"{where}: a body holds ASCII only (contract 0.1)", wanted.body, answer.body)
        match_text(f"{where}: body", wanted.body, answer.body, self.run, self._adjust)
        self._take(wanted.files)
        self._check_files(where)

    # --- comparing ------------------------------------------------------------------------------------

    def _check_outcome(
        self, where: str, expected: Expected, outcome: Outcome, adjust: Callable[[Any, Any], None]
    ) -> None:
        # Where the reference crashes, any failure would do (0.5); ours are always this one.
        code = 1 if expected.exit_code == "<nonzero>" else expected.exit_code
        if outcome.code != code:
            raise Mismatch(f"{where}: exit code, with {outcome.err!r}", code, outcome.code)
        match_text(f"{where}: stdout", expected.stdout, outcome.out, self.run, adjust)
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

    def _check_sink(self, where: str, expected: Expected) -> None:
        """The sink got what it did from v1, in the same order."""
        if expected.sink_requests is None or self.sink is None:
            return
        posted = [request for request in self.sink.take() if request.method == "POST"]
        if len(posted) != len(expected.sink_requests):
            raise Mismatch(f"{where}: requests to the sink", expected.sink_requests, posted)
        for number, (wanted, found) in enumerate(zip(expected.sink_requests, posted, strict=True), 1):
            place = f"{where}: request {number} to the sink"
            if (wanted["method"], wanted["path"]) != (found.method, found.path):
                raise Mismatch(place, wanted, found)
            _check_headers(place, wanted["headers"], found)
            # One line of JSON, with or without a newline at its end.
            match_text(f"{place}: body", wanted["body"].strip(), found.body.strip(), self.run, self._adjust)

    def _take(self, files: dict[str, str | None]) -> None:
        """From now on these files are to be as recorded."""
        for path, text in files.items():
            self.untouched.pop(path, None)
            self.recorded[path] = text

    def _check_files(self, where: str) -> None:
        """Every file is as recorded, those included that this step did not touch, and no other exists."""
        for path in sorted(self.workspace.files() | set(self.recorded)):
            if deviations.is_beside_v1(path):
                continue
            if self.way == "http" and path.endswith(IDEMPOTENCY_FILE) and path not in self.recorded:
                continue  # compared by itself
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
        if self._through_agent and self.case.area != "control":
            say_service(recorded)

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


def _is_control(path: str) -> bool:
    return any(path == f"{MANAGER_FILES}{name}" for name in CONTROL_FILES)


def _each_row(text: str | None, change: Callable[[Any], Any]) -> str:
    return "".join(_line(change(json.loads(line))) for line in (text or "").splitlines())


def _line(document: Any) -> str:
    return json.dumps(document) + "\n"


def _open_both(_recorded: Any, found: Any) -> None:
    open_answers(found)


def _filled(script: list[dict[str, Any]], run: Run) -> list[dict[str, Any]]:
    return [{**item, "body": run.fill(item["body"])} for item in script]


def _check_headers(place: str, wanted: dict[str, str], found: Request) -> None:
    for name, value in wanted.items():
        if found.header(name) != value:
            raise Mismatch(f"{place}: header {name}", value, found.header(name))
