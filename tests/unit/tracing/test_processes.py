"""Spans of one process under those of another."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spritemesh.tracing import tracers
from spritemesh.tracing.settings import Settings
from spritemesh.tracing.tracers import Tracer
from tests.harness.tracing import Traced, read_lines, traced

CHILD = """
from spritemesh.tracing import tracer
with tracer.span("mem", "child"):
    tracer.event("mem", "deep")
"""


def test_a_child_process_goes_on_under_the_span_that_started_it(
    on: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_MANAGER_TRACE_ID", "ops-1")
    with on.tracer.span("alt", "plan"):
        # Elsewhere, and switched on by nothing else.
        environment = on.tracer.child_environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", CHILD], check=True, env=environment, cwd="/")
    assert on.parents() == {"deep": "child", "child": "plan", "plan": None}
    lines = on.by_operation()
    # The root of each process has it; this one was there before it was said.
    assert lines["child"]["metadata"] == {"ops_trace_id": "ops-1"}
    assert not lines["deep"]["metadata"]


REQUEST = """
import asyncio, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from spritemesh.tracing import tracer

def start():
    with tracer.span("sys", "start"):
        subprocess.run([sys.executable, "-c", sys.argv[1]], check=True, env=tracer.child_environment())

async def step(number):
    async with tracer.span("rsn", f"step{number}"):
        await asyncio.sleep(0)
        if number:
            await asyncio.to_thread(start)

async def steps():
    await asyncio.gather(step(0), step(1))

with tracer.span("alt", "request"), ThreadPoolExecutor(1) as pool:
    pool.submit(asyncio.run, steps()).result()
"""


def test_a_request_that_crosses_threads_tasks_and_processes_is_one_tree(tmp_path: Path) -> None:
    variables = dict(os.environ) | {"DOPEJAR_TRACE": "1"}
    subprocess.run([sys.executable, "-c", REQUEST, CHILD], check=True, cwd=tmp_path, env=variables)
    lines = read_lines(tmp_path / "trace.jsonl")
    names = {line["trace_id"]: line["operation"] for line in lines}
    assert {line["operation"]: names.get(line["parent_id"]) for line in lines} == {
        "request": None, "step0": "request", "step1": "request", "start": "step1", "child": "start",
        "deep": "child",
    }  # fmt: skip


def test_a_root_carries_the_ops_trace_id_of_the_command_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_MANAGER_TRACE_ID", "ops-1")
    monkeypatch.setenv("DOPEJAR_TRACE_PARENT", "alt_1705180800_a3f2")
    with traced(tmp_path / "trace.jsonl") as tracing:
        assert tracing.tracer.current_id() == "alt_1705180800_a3f2"
        with tracing.tracer.span("alt", "plan", metadata={"ops_trace_id": "not this"}):
            tracing.tracer.event("mem", "read")
        assert tracing.parents() == {"read": "plan", "plan": "alt_1705180800_a3f2"}
        assert tracing.by_operation()["plan"]["metadata"] == {"ops_trace_id": "ops-1"}


def test_what_travels_is_the_current_span_and_nothing_where_there_is_none(on: Traced) -> None:
    tracer = on.tracer
    given = {"PATH": "/bin", "DOPEJAR_TRACE_PARENT": "alt_1705180800_a3f2"}
    assert tracer.metadata() == ()
    traced_child = {"PATH": "/bin", "DOPEJAR_TRACE": "1", "DOPEJAR_TRACE_FILE": str(on.path)}
    assert tracer.child_environment(given) == traced_child
    with tracer.span("alt", "plan") as ctx:
        assert tracer.current_id() == ctx.trace_id
        assert tracer.metadata() == (("x-trace-parent", ctx.trace_id),)
        below = {"DOPEJAR_TRACE_PARENT": ctx.trace_id}
        assert tracer.child_environment(given) == traced_child | below
        assert tracer.child_environment()["PATH"] == os.environ["PATH"]
    off = Tracer()
    off.configure(enabled=False)
    assert (off.current_id(), off.metadata(), off.child_environment(given)) == ("", (), given)
    assert off.flush()
    with off.adopted("alt_1705180800_a3f2"):
        assert not off.current_id()


def test_after_a_fork_open_spans_are_the_parents_and_new_ones_hang_from_them(on: Traced) -> None:
    with on.tracer.span("alt", "plan"):
        on.tracer.event("mem", "before")
        child = os.fork()
        if not child:
            try:
                with on.tracer.span("mem", "in_child"):
                    pass
            finally:
                on.tracer.flush(5)
        else:
            os.waitpid(child, 0)
    if not child:
        on.tracer.flush(5)
        os._exit(0)
    assert on.parents() == {"before": "plan", "in_child": "plan", "plan": None}


def test_a_fork_while_another_thread_is_first_leaves_the_child_free(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, is_asked, may_go_on = os.getpid(), threading.Event(), threading.Event()

    def slowly(*_: object, **__: object) -> Settings:
        if os.getpid() == parent:
            is_asked.set()
            may_go_on.wait(10)
        return Settings(enabled=False)

    tracer = Tracer()
    monkeypatch.setattr(tracers, "resolved", slowly)
    thread = threading.Thread(target=lambda: tracer.enabled)
    thread.start()
    is_asked.wait(10)
    child = os.fork()
    if not child:
        signal.alarm(5)
        os._exit(tracer.enabled)
    may_go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_importing_the_tracer_brings_in_nothing_that_is_slow_to_import(tmp_path: Path) -> None:
    program = (
        "import sys, msgspec; before = set(sys.modules)\n"
        "from spritemesh.tracing import tracer\n"
        "with tracer.span('alt', 'plan'): tracer.event('mem', 'read')\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("DOPEJAR_")},
    )  # fmt: skip
    brought = set(done.stdout.split())
    assert not brought & {
        "json", "yaml", "inspect", "threading", "logging", "asyncio", "random", "dataclasses", "uuid",
        "concurrent.futures", "datetime", "grpc",
    }  # fmt: skip
    assert not (tmp_path / "trace.jsonl").exists()


def test_threads_that_are_first_at_once_share_one_file(tmp_path: Path) -> None:
    program = (
        "import threading\n"
        "from spritemesh.tracing import tracer\n"
        "gate = threading.Barrier(16)\n"
        "def work():\n"
        "    gate.wait(); tracer.event('mem', 'read')\n"
        "threads = [threading.Thread(target=work) for _ in range(16)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=tmp_path,
        env=dict(os.environ) | {"DOPEJAR_TRACE": "1"},
    )
    assert len(read_lines(tmp_path / "trace.jsonl")) == 16
