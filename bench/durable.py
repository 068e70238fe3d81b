"""Replay from the first line on, disk to durable manager state, beside what a user would take instead.

A turn has a fresh manager that watches nothing. The clock starts just before the loop is put into its
registry, so that the reload and the connection count and the start of the process does not; it stops when
cursor.json, which is written with the state, tells of the last line. The agent has read its log once before,
as in `replay`.
"""

import os
import shutil
import time
from typing import NamedTuple

from bench import processes, redis_streams
from bench.fixtures import LOOP, Workplace
from bench.measure import MIN_ROUNDS, Bound, Figure, Spread, at_least, spread
from spritemesh import jsontext

# Slower by far: a fifth of the lines tells as much.
_BASE_LINES = 200_000
_LOOK_SECONDS = 0.005
_LONGEST_SECONDS = 120.0


class _Sample(NamedTuple):
    """rate: events a second. CPU in seconds an event."""

    rate: float
    sender_cpu: float
    manager_cpu: float


def run(place: Workplace) -> list[Figure]:
    lines = 200_000 if place.quick else 1_000_000
    base_lines = 20_000 if place.quick else _BASE_LINES
    log = place.log_of_lines(base_lines)
    repo = place.repository("durable", {LOOP: place.log_of_lines(lines)})
    program = shutil.which("redis-server")
    ours: list[_Sample] = []
    otlp: list[float] = []
    streams: list[float] = []
    with (
        processes.server([processes.PYTHON, "-m", "bench.otlp", "receive"]) as receiver,
        processes.agent(repo) as agent,
    ):
        for turn in range(MIN_ROUNDS + 1):
            found = (
                _otlp(receiver, log, base_lines),
                _redis(program, place, turn, log, base_lines) if program else 0.0,
                _replay(place, turn, agent, lines),
            )
            if turn:
                otlp.append(found[0])
                streams.append(found[1])
                ours.append(found[2])
    rate = spread([sample.rate for sample in ours], "events/s")
    return [
        Figure("durable", "rate", rate.median, "events/s", at_least(200_000), rate),
        _ratio("rate / OpenTelemetry", rate, at_least(8), "logs SDK, OTLP/gRPC, lossless", otlp),
        _ratio("rate / Redis Streams", rate, at_least(1), "XADD pipelined, append-only file", streams)
        if program
        else Figure(
            "durable",
            "rate / Redis Streams",
            0.0,
            "x",
            at_least(1),
            rate,
            unmeasured="there is no redis-server on PATH (Debian package redis-server)",
        ),
        _cpu("agent's CPU an event", [sample.sender_cpu for sample in ours]),
        _cpu("manager's CPU an event", [sample.manager_cpu for sample in ours]),
    ]


def _ratio(what: str, ours: Spread, bound: Bound, baseline: str, rates: list[float]) -> Figure:
    base = spread(rates, "events/s")
    return Figure("durable", what, ours.median / base.median, "x", bound, ours, baseline, base)


def _cpu(what: str, values: list[float]) -> Figure:
    found = spread(values, "us", scale=1e6)
    return Figure("durable", what, found.median, "us", None, found)


def _replay(place: Workplace, turn: int, agent: processes.Server, lines: int) -> _Sample:
    with processes.manager(os.path.join(place.path, f"durable-manager-{turn}"), {}) as manager:
        cpu = agent.cpu_seconds(), manager.server.cpu_seconds()
        began = time.perf_counter()
        manager.reload({LOOP: agent.target})
        _wait_for_line(os.path.join(manager.ops(LOOP), "cursor.json"), lines)
        seconds = time.perf_counter() - began
        # Processor time is accounted in ticks of 10 ms; the last one is not lost this way.
        time.sleep(0.02)
        agent_cpu, manager_cpu = agent.cpu_seconds() - cpu[0], manager.server.cpu_seconds() - cpu[1]
    return _Sample(lines / seconds, agent_cpu / lines, manager_cpu / lines)


def _wait_for_line(cursor: str, lines: int) -> None:
    until = time.monotonic() + _LONGEST_SECONDS
    line = 0
    while line < lines:
        if time.monotonic() > until:
            raise RuntimeError(f"the manager is at line {line} of {lines} after {_LONGEST_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
        try:
            with open(cursor, "rb") as file:
                line = jsontext.parse(file.read())["eventLineOffset"]
        except FileNotFoundError:
            pass  # nothing is committed yet


def _otlp(receiver: processes.Server, log: str, lines: int) -> float:
    with processes.Helper("bench.otlp", "send", receiver.target, log) as sender:
        answer = sender.answer()
    if answer["count"] != lines:
        raise RuntimeError(f"OpenTelemetry brought {answer['count']} of {lines} lines")
    return float(lines / answer["seconds"])


def _redis(program: str, place: Workplace, turn: int, log: str, lines: int) -> float:
    with (
        redis_streams.server(program, os.path.join(place.path, f"redis-{turn}")) as socket,
        processes.Helper("bench.redis_streams", "read", socket, str(lines)) as reader,
    ):
        reader.answer()
        with processes.Helper("bench.redis_streams", "send", socket, log) as sender:
            began, ended = sender.answer()["began"], reader.answer()["ended"]
    shutil.rmtree(os.path.dirname(socket))
    return float(lines / (ended - began))
