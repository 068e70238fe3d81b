"""`make run`: the whole way once, from a loop's files over gRPC to an operator, with the real programs.

Starts a demo loop (unless a repository is given), an agent with a fresh token on a free loopback port,
a follower that prints events as they come, and a reconcile pass every two seconds. Once, an operator
cancels the demo loop, twice with the same key, and starts it again; a loop of a repository that was given
is never touched. Everything is kept in
a temporary directory, the manager's files too, and is gone at the end; the repository given is only read,
but for the heartbeat that the agent keeps while a loop runs there, which is removed again.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from sprite_agent.runtime.layout import resolve_repo
from spritemesh import jsontext
from spritemesh.commandline import Parser, Stop
from spritemesh.errors import OpsError
from spritemesh.ids import new_trace_id, validate_loop_id
from spritemesh.program import fail, guarded
from spritemesh.values import get

_PASS_SECONDS = 2.0
_READY_SECONDS = 20.0
_STOP_SECONDS = 8.0
# When the operator of the demonstration steps in.
_STEP_IN_SECONDS = 6.0
_DEMO_LOOP = "demo"
_DEMO_NAME = "demo loop"


class Stopped(Exception):
    """The operator, or the system, wants the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code.

    0 after Ctrl-C. With --duration 0 only if the loop was seen over gRPC and is healthy, and the last
    line on standard output is the status document.
    """
    parser = Parser("make run", "Show the main job working on real input, live, until Ctrl-C.")
    parser.add_argument("--repo", metavar="DIR", help="a real repository instead of a demo loop")
    parser.add_argument("--loop", metavar="ID", help="the loop in it (default: the only one)")
    parser.add_argument("--duration", type=_seconds, metavar="SECONDS", help="end after so long")

    def work() -> int:
        try:
            args = parser.read(sys.argv[1:] if argv is None else argv)
        except Stop as stop:
            sys.stdout.write(stop.out)
            return fail(stop.error) if stop.error else stop.code
        return _Demonstration(args).run()

    return guarded(work)


class _Demonstration:
    def __init__(self, args: argparse.Namespace) -> None:
        self._duration: float | None = args.duration
        self._given = resolve_repo(args.repo) if args.repo else None
        self._loop = _choose_loop(self._given, args.loop)
        self._children: list[tuple[str, subprocess.Popen[str]]] = []
        self._work = ""
        self._status: Any = None

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        heartbeat = _heartbeat_path(self._given, self._loop) if self._given else ""
        kept_heartbeat = bool(heartbeat) and os.path.exists(heartbeat)
        self._work = tempfile.mkdtemp(prefix="spritemesh-run-")
        try:
            self._watch()
        except Stopped:
            print("stopping", flush=True)
            self._duration = None
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self._stop_children()
            if heartbeat and not kept_heartbeat:
                _remove_heartbeat(heartbeat)
            shutil.rmtree(self._work, ignore_errors=True)
        if self._duration is None:
            return 0
        print(json.dumps(self._status, separators=(",", ":"), ensure_ascii=False), flush=True)
        return 0 if self._is_healthy(self._status) else 1

    def _watch(self) -> None:
        """Start everything, then pass after pass until the time is up."""
        deadline = None if self._duration is None else time.monotonic() + self._duration
        repo = self._given or self._start_loop()
        address = self._start_agent(repo)
        print(f"agent on {address}, loop {self._loop!r} of {repo}", flush=True)
        if not self._given:
            print(
                "a demo loop plays the runtime; try `make run REPO=path LOOP=id` for a real one", flush=True
            )
        self._start_follower(address)
        step_in = None if self._given else time.monotonic() + _STEP_IN_SECONDS
        while deadline is None or time.monotonic() < deadline:
            self._check_children()
            self._reconcile(address)
            if step_in is not None and time.monotonic() > step_in:
                step_in = None
                self._step_in(address)
            pause = _PASS_SECONDS if deadline is None else min(_PASS_SECONDS, deadline - time.monotonic())
            time.sleep(max(0.0, pause))

    # --- the programs -------------------------------------------------------------------------------

    def _start_loop(self) -> str:
        repo = os.path.join(self._work, "sprite")
        os.makedirs(repo, exist_ok=True)
        loop = self._start(
            _DEMO_NAME,
            ["-m", "sprite_agent", "demo-loop", "--repo", repo, "--loop", self._loop, "--iterations", "0"],
        )
        self._first_line(_DEMO_NAME, loop)
        return repo

    def _start_agent(self, repo: str) -> str:
        os.makedirs(os.path.join(self._work, "manager"))
        token = secrets.token_urlsafe(32)
        self._env = {**os.environ, "OPS_MANAGER_SERVICE_TOKEN": token}
        self._env.pop("OPS_MANAGER_TRACE_ID", None)
        runtime = os.path.join(os.path.dirname(sys.executable), "superloop-demo")
        words = ["--repo", repo, "--grpc", "127.0.0.1:0"]
        if not self._given:
            words += ["--runtime-command", runtime]
        agent = self._start("agent", ["-m", "sprite_agent", "serve", *words], quiet=True)
        return f"grpc://{json.loads(self._first_line('agent', agent))['grpc']}"

    def _start_follower(self, address: str) -> None:
        words = ["-m", "manager", "poll-events", *self._manager_flags(), "--follow", "--output", "table"]
        words += ["--service-base-url", address]
        words += ["--cursor-file", os.path.join(self._work, "follow.cursor.json")]
        follower = self._start("follower", words)
        threading.Thread(target=_copy_lines, args=(follower.stdout,), daemon=True).start()

    def _reconcile(self, address: str) -> None:
        words = ["reconcile", *self._manager_flags(), "--transport", "sprite_service"]
        self._manage(*words, "--service-base-url", address, "--retry-attempts", "1")
        self._status = self._manage("status", *self._manager_flags())
        health = get(self._status, "health", "status")
        reasons = ", ".join(get(self._status, "health", "reasonCodes") or [])
        lag = get(self._status, "health", "metrics", "heartbeatLagSeconds")
        state, iteration = (get(self._status, "lifecycle", name) for name in ("state", "iteration"))
        print(
            f"---- {state}, iteration {iteration},"
            f" line {get(self._status, 'cursor', 'eventLineOffset')},"
            f" heartbeat {'unknown' if lag is None else f'{lag} s ago'},"
            f" {health}{f' ({reasons})' if reasons else ''}",
            flush=True,
        )

    def _step_in(self, address: str) -> None:
        """Cancel the demo loop, say it again with the same key, show the trace, and start the loop anew."""
        self._children = [child for child in self._children if child[0] != _DEMO_NAME]
        key, trace_id = f"demonstration-{secrets.token_hex(4)}", new_trace_id()
        words = ["control", *self._manager_flags(), "--intent", "cancel", "--by", "demonstration"]
        words += ["--idempotency-key", key, "--trace-id", trace_id]
        words += ["--transport", "sprite_service", "--service-base-url", address]
        for said in ("operator cancels", "the same key again"):
            row = self._manage(*words)
            answer = jsontext.parse(get(row, "commandOutput") or "null")
            again = ", replayed: nothing ran" if get(answer, "replayed") else ""
            print(f"---- {said}: {get(row, 'status')}{again}", flush=True)
        print("---- what happened under that trace id:", flush=True)
        subprocess.run(
            [sys.executable, "-m", "manager", "trace", trace_id, *self._manager_flags(), "--output", "table"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            process_group=0,
            check=False,
        )
        print("---- and the loop is started anew", flush=True)
        self._start_loop()

    def _manage(self, *words: str) -> Any:
        """One ops-manager command; its document, None when it printed none."""
        done = subprocess.run(
            [sys.executable, "-m", "manager", *words, "--output", "json"],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
            check=False,
        )
        return json.loads(done.stdout) if done.stdout.startswith("{") else None

    def _manager_flags(self) -> list[str]:
        return ["--repo", os.path.join(self._work, "manager"), "--loop", self._loop]

    def _start(self, name: str, words: list[str], *, quiet: bool = False) -> subprocess.Popen[str]:
        """A child in a group of its own, so that Ctrl-C reaches only us and the end has an order."""
        child = subprocess.Popen(
            [sys.executable, *words],
            env=getattr(self, "_env", None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
            process_group=0,
        )
        self._children.append((name, child))
        return child

    def _first_line(self, name: str, child: subprocess.Popen[str]) -> str:
        """The line by which a child says that it is ready."""
        timer = threading.Timer(_READY_SECONDS, child.kill)
        timer.start()
        try:
            line = child.stdout.readline() if child.stdout is not None else ""
        finally:
            timer.cancel()
        if not line.startswith("{"):
            raise OpsError("internal_error", f"the {name} did not start")
        return line

    def _check_children(self) -> None:
        for name, child in self._children:
            if child.poll() is not None:
                raise OpsError("internal_error", f"the {name} ended unexpectedly with {child.returncode}")

    def _stop_children(self) -> None:
        """The follower first and the loop last, so that nobody misses its source; then by force."""
        deadline = time.monotonic() + _STOP_SECONDS
        for _, child in reversed(self._children):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    # --- what came of it ----------------------------------------------------------------------------

    @staticmethod
    def _is_healthy(status: Any) -> bool:
        """The loop was read over gRPC by the last pass, down to its last line, and is healthy."""
        return (
            get(status, "reconcile", "lastTransport") == "sprite_service"
            and get(status, "reconcile", "lastStatus") == "success"
            and bool(get(status, "cursor", "eventLineOffset"))
            and get(status, "health", "status") == "healthy"
        )


def _heartbeat_path(repo: str, loop: str) -> str:
    from sprite_agent.runtime.layout import loop_paths

    return os.path.join(repo, loop_paths(loop).heartbeat)


def _choose_loop(repo: str | None, loop: str | None) -> str:
    """The loop id: the one given, else the only one there is."""
    if repo is None:
        return validate_loop_id(loop, field="--loop") if loop else _DEMO_LOOP
    from sprite_agent.runtime.layout import list_loop_ids

    found = list_loop_ids(repo)
    if loop:
        validate_loop_id(loop, field="--loop")
        if loop not in found:
            known = ", ".join(found[:10]) or "none"
            raise OpsError("loop_not_found", f"loop {loop} is not in {repo}; there: {known}", field="--loop")
        return loop
    if len(found) != 1:
        known = ", ".join(found[:10]) or "none"
        raise OpsError("invalid_request", f"--loop is required; loops of {repo}: {known}", field="--loop")
    return found[0]


def _copy_lines(stream: IO[str]) -> None:
    """Pass a child's lines on; on a terminal each stays on one line of it."""
    with suppress(OSError):
        for line in stream:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else len(line)
            sys.stdout.write(f"{line.rstrip()[:width]}\n")
            sys.stdout.flush()


def _stop(_number: int, _frame: object) -> None:
    raise Stopped


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("takes seconds") from None
    if not 1 <= seconds <= 86400 * 365:
        raise ValueError("must be at least 1")
    return seconds


def _remove_heartbeat(path: str) -> None:
    """Remove the heartbeat that our agent kept, and nobody else's."""
    from sprite_agent.heartbeat import WRITER

    with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        if get(json.load(file), "writer") == WRITER:
            os.unlink(path)


if __name__ == "__main__":
    sys.exit(main())
