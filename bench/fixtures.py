"""Logs and repositories to measure with: lines as a runtime writes them (contract A), never two alike."""

import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

from spritemesh import jsontext

LOOP = "bench-loop"
_RUN = "2026-02-22T03:45:00Z"
_FIRST_SECOND = 1_771_731_900
_BLOCK_LINES = 4096


class Workplace:
    """A temporary directory with logs that benchmarks share. quick: smaller sizes and fewer rounds."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.path = tempfile.mkdtemp(prefix="spritemesh-bench-")
        self._logs: dict[tuple[str, int], str] = {}

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def log_of_lines(self, lines: int) -> str:
        """Path of a log with so many lines; not to be written to."""
        return self._log("lines", lines, lambda: itertools.islice(event_lines(), lines))

    def log_of_bytes(self, size: int) -> str:
        """Path of a log of about so many bytes; not to be written to."""
        return self._log("bytes", size, lambda: _up_to(event_lines(), size))

    def repository(self, name: str, logs: dict[str, str]) -> str:
        """A repository with state files and loops, whose logs are other names of the given files."""
        repo = os.path.join(self.path, name)
        for loop_id, log in logs.items():
            directory = os.path.join(repo, ".superloop", "loops", loop_id)
            os.makedirs(directory)
            os.link(log, os.path.join(directory, "events.jsonl"))
            _write(os.path.join(directory, "run-summary.json"), _run_summary(loop_id))
            _write(os.path.join(directory, "approval.json"), _approval(loop_id))
        first = next(iter(logs))
        _write(os.path.join(repo, ".superloop", "state.json"), _state(first))
        # The benchmark itself stands for the runtime's process, so that the agent has one to look after.
        _write(os.path.join(repo, ".superloop", "active-run.json"), _active_run(repo, first))
        return repo

    def _log(self, kind: str, size: int, lines: Callable[[], Iterator[str]]) -> str:
        path = self._logs.get((kind, size))
        if path is None:
            path = os.path.join(self.path, f"{kind}-{size}.jsonl")
            with open(path, "w", encoding="ascii") as file:
                file.writelines(lines())
            self._logs[kind, size] = path
        return path


def event_lines(seed: int = 1, *, loop_id: str = LOOP) -> Iterator[str]:
    """Endless lines, about 258 bytes on average, some with escapes; the same for the same seed."""
    chance = random.Random(seed)
    second = _FIRST_SECOND
    line = 0
    while True:
        stamp = time.strftime("%Y-%m-%dT%H:%M:", time.gmtime(second))
        for event, template in chance.choices(_KINDS, _WEIGHTS, k=_BLOCK_LINES):
            line += 1
            if not line % 3:
                second += 1
                if not second % 60:
                    stamp = time.strftime("%Y-%m-%dT%H:%M:", time.gmtime(second))
            rest = template % {"n": line, "hex": chance.getrandbits(160), "small": chance.getrandbits(12)}
            yield (
                f'{{"timestamp":"{stamp}{second % 60:02}Z","event":"{event}","loop_id":"{loop_id}",'
                f'"run_id":"{_RUN}","iteration":{line // 400 + 1},{rest}\n'
            )


def live_line(number: int, *, loop_id: str = LOOP) -> bytes:
    """A line of this moment, whose data say when it was made: `written_ns`, monotonic. Lengths vary."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    pad = "x" * (number % 40)
    return (
        f'{{"timestamp":"{stamp}","event":"tests_end","loop_id":"{loop_id}","run_id":"{_RUN}","iteration":1,'
        f'"role":"implementer","status":"ok","message":"suite {number} said \\"ok\\" {pad}",'
        f'"data":{{"status":"passed","written_ns":{time.monotonic_ns()}}}}}\n'
    ).encode()


# How often a kind of event comes, its name, and what follows the keys that all lines share.
_TEMPLATES: tuple[tuple[int, str, str], ...] = (
    (
        4,
        "role_start",
        (
            '"role":"implementer","data":{"prompt_file":"prompts/%(n)d.md",'
            '"log_file":"logs/%(n)d-implementer.log","last_message_file":"out/%(n)d.md"}}'
        ),
    ),
    (
        4,
        "role_end",
        (
            '"role":"reviewer","data":{"log_file":"logs/%(n)d-reviewer.log",'
            '"last_message_file":"out/%(n)d-%(small)d.md"}}'
        ),
    ),
    (
        3,
        "pre_commit_executed",
        (
            '"message":"said \\"ok\\" after %(small)d ms","data":{"command":"make lint","exit_code":0,'
            '"output":"%(small)d files\\nmypy: \\"none\\"\\n\\ttree %(hex)040x\\n"}}'
        ),
    ),
    (
        2,
        "auto_commit_success",
        (
            '"data":{"sha":"%(hex)040x","subject":"Tighten step %(n)d","strategy":"iteration",'
            '"message_source":"template"}}'
        ),
    ),
    (
        2,
        "tests_end",
        (
            '"status":"ok","data":{"status":"passed","details":{"passed":%(small)d,"failed":0,'
            '"report":"reports/%(hex)040x.xml"}}}'
        ),
    ),
    (
        2,
        "delegation_wave_dispatch",
        (
            '"role":"planner","data":{"role":"planner","wave_id":"w-%(n)d","child_id":"c-%(small)d",'
            '"wave":%(small)d,"launched_children":2,"total_children":5,"active_workers":2,'
            '"concurrency_cap":2,"queued_children":3}}'
        ),
    ),
    (
        1,
        "gates_evaluated",
        (
            '"data":{"promise":true,"tests":"ok","validation":"ok","prerequisites":"skipped",'
            '"checklist":"ok","evidence":"evidence-%(n)d","lifecycle":"skipped","approval":"none",'
            '"stuck":"%(small)d/4096"}}'
        ),
    ),
    (3, "iteration_start", '"data":{"started_at":"step %(n)d"}}'),
)
_WEIGHTS = [weight for weight, _, _ in _TEMPLATES]
_KINDS = [(event, rest) for _, event, rest in _TEMPLATES]


def _up_to(lines: Iterator[str], size: int) -> Iterator[str]:
    for line in lines:
        yield line
        size -= len(line)
        if size <= 0:
            return


# --- state files ------------------------------------------------------------------------------------


def _write(path: str, value: jsontext.JSON) -> None:
    with open(path, "wb") as file:
        file.write(jsontext.pretty(value) + b"\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _state(loop_id: str) -> jsontext.JSON:
    return {
        "active": True,
        "loop_index": 0,
        "iteration": 7,
        "current_loop_id": loop_id,
        "updated_at": _now(),
    }


def _active_run(repo: str, loop_id: str) -> jsontext.JSON:
    return {
        "repo": repo,
        "pid": os.getpid(),
        "pgid": os.getpgid(0),
        "loop_id": loop_id,
        "iteration": 7,
        "stage": "loop_start",
        "updated_at": _now(),
    }


def _gates() -> dict[str, str]:
    return {
        "tests": "ok",
        "validation": "ok",
        "prerequisites": "skipped",
        "checklist": "ok",
        "evidence": "skipped",
        "lifecycle": "skipped",
    }


def _run_summary(loop_id: str) -> jsontext.JSON:
    entries = [
        {
            "run_id": _RUN,
            "iteration": iteration,
            "started_at": f"2026-02-22T0{iteration}:00:00Z",
            "ended_at": f"2026-02-22T0{iteration}:40:00Z",
            "promise": {"expected": "DONE", "text": None, "matched": False},
            "gates": {**_gates(), "approval": "none"},
            "tests_mode": "every",
            "stuck": {"streak": 0, "threshold": 3},
            "completion_ok": False,
            "artifacts": {
                name: {"path": f"loops/{loop_id}/{iteration}/{name}.json", "exists": True}
                for name in ("plan", "implementer", "test_report", "reviewer", "gate_summary", "events")
            },
        }
        for iteration in range(1, 7)
    ]
    return {"version": 1, "loop_id": loop_id, "updated_at": _now(), "entries": entries}


def _approval(loop_id: str) -> jsontext.JSON:
    return {
        "status": "pending",
        "loop_id": loop_id,
        "run_id": _RUN,
        "iteration": 6,
        "requested_at": "2026-02-22T06:41:00Z",
        "iteration_started_at": "2026-02-22T06:00:00Z",
        "iteration_ended_at": "2026-02-22T06:40:00Z",
        "candidate": {
            "promise": {"expected": "DONE", "text": "DONE", "matched": True},
            "gates": _gates(),
        },
        "files": {
            name: f"loops/{loop_id}/6/{name}.md" for name in ("gate_summary", "evidence", "test_report")
        },
    }
