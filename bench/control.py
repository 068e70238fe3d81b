"""A control request's round trip, less the runtime command's own time; beside what it cannot do without."""

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import grpc

from bench import fixtures, processes
from bench.fixtures import Workplace
from bench.measure import Figure, at_most, percentile, rounds, spread
from bench.snapshot import echo_p50
from spritemesh import files
from superloop.ops.v1 import control_pb2, control_pb2_grpc

# The runtime: it takes any arguments, and does nothing.
_PROGRAM = "/bin/true"
_ROW = "x" * 1000
# What a request writes for good before it is answered: recorded, executed, audited; its three rows, and that
# of the chain.
_TRANSACTIONS = 3
_LINES = 4


def run(place: Workplace) -> list[Figure]:
    calls = 40 if place.quick else 100
    repo = place.repository("control", {fixtures.LOOP: place.log_of_bytes(1_000_000)})
    ninety_ninths: list[float] = []
    with (
        processes.server([processes.PYTHON, "-m", "bench.servers", "echo"]) as bare,
        processes.agent(repo, "--runtime-command", _PROGRAM) as agent,
        grpc.insecure_channel(bare.target) as bare_channel,
        grpc.insecure_channel(agent.target) as channel,
        closing(_database(os.path.join(place.path, "one.db"))) as database,
    ):
        ask = _asking(control_pb2_grpc.ControlServiceStub(channel))
        line = os.path.join(place.path, "one.jsonl")

        def round_trip() -> float:
            taken = _taken(ask, calls)
            ninety_ninths.append(percentile(taken, 99))
            return percentile(taken, 50)

        found = rounds(
            7,
            echo_p50(bare_channel, calls),
            lambda: percentile(_taken(lambda: _insert(database), calls), 50),
            lambda: percentile(_taken(lambda: files.append_rows(line, [_ROW], sync=True), calls), 50),
            lambda: percentile(_taken(lambda: _command(repo), calls), 50),
            round_trip,
        )
    echoes, transactions, lines, commands, whole = found
    least = [
        echo + _TRANSACTIONS * transaction + _LINES * line_time
        for echo, transaction, line_time in zip(echoes, transactions, lines, strict=True)
    ]
    ours = spread([a - b for a, b in zip(whole, commands, strict=True)], "ms", scale=1e3)
    worst = spread([a - b for a, b in zip(ninety_ninths[1:], commands, strict=True)], "ms", scale=1e3)
    base = spread(least, "ms", scale=1e3)
    return [
        Figure(
            "control",
            "round trip - command, p50",
            ours.median,
            "ms",
            at_most(5),
            ours,
            "the command alone, p50",
            spread(commands, "ms", scale=1e3),
        ),
        Figure(
            "control",
            "round trip - command, p99",
            worst.median,
            "ms",
            None,
            worst,
            "bare grpc.aio echo, p50",
            spread(echoes, "ms", scale=1e3),
        ),
        Figure(
            "control",
            f"p50 / (echo + {_TRANSACTIONS} transactions + {_LINES} lines)",
            ours.median / base.median,
            "x",
            None,
            ours,
            "their sum",
            base,
        ),
        Figure(
            "control",
            "one synced SQLite transaction",
            spread(transactions, "ms", scale=1e3).median,
            "ms",
            None,
            spread(transactions, "ms", scale=1e3),
            "one synced line",
            spread(lines, "ms", scale=1e3),
        ),
    ]


def _asking(stub: control_pb2_grpc.ControlServiceStub) -> Callable[[], object]:
    """Cancels the loop, with another key each time, and does not look for an effect."""
    policy = control_pb2.ConfirmationPolicy(skip=True)

    def requests() -> Iterator[control_pb2.CancelLoopRequest]:
        number = 0
        while True:
            number += 1
            yield control_pb2.CancelLoopRequest(
                loop_id=fixtures.LOOP,
                requested_by="bench",
                note="measured",
                idempotency_key=f"bench-{number}",
                confirmation=policy,
            )

    made = requests()

    def ask() -> None:
        outcome = stub.CancelLoop(next(made), metadata=processes.METADATA, timeout=60).outcome
        if outcome.status != control_pb2.CONTROL_STATUS_EXECUTED_UNCONFIRMED:
            raise RuntimeError(f"a request ended with {outcome.reason}")

    return ask


def _command(repo: str) -> None:
    """The command as the agent runs it: its own process group, its output read."""
    with subprocess.Popen(
        [_PROGRAM, "cancel", "--repo", repo],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{_PROGRAM} ended with {process.returncode}")


def _database(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, data TEXT)")
    return database


def _insert(database: sqlite3.Connection) -> None:
    database.execute("INSERT INTO entry (data) VALUES (?)", (_ROW,))


def _taken(work: Callable[[], object], count: int) -> list[float]:
    """What each of so many turns took, seconds."""
    taken = []
    for _ in range(count):
        before = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before)
    return taken
