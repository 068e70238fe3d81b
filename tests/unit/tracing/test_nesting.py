"""What hangs from what: across threads, pools, tasks and generators."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from spritemesh.tracing import Span, tracer
from spritemesh.tracing.context import CURRENT
from spritemesh.tracing.tracers import Tracer
from tests.harness.tracing import Traced, read_lines, traced


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_thread_goes_on_under_the_span_that_started_it(on: Traced) -> None:
    class Own(threading.Thread):
        def run(self) -> None:
            with on.tracer.span("mem", "own"):
                in_thread(lambda: on.tracer.event("mem", "deep"))

    with on.tracer.span("alt", "plan"):
        own = Own()
        own.start()
        timer = threading.Timer(0, lambda: on.tracer.event("mem", "timer"))
        timer.start()
        own.join()
        timer.join()
    in_thread(lambda: on.tracer.event("mem", "alone"))
    assert on.parents() == {"deep": "own", "own": "plan", "timer": "plan", "plan": None, "alone": None}


def test_a_thread_may_outlive_the_span_that_started_it(on: Traced) -> None:
    goes_on = threading.Event()

    def work() -> None:
        goes_on.wait(10)
        on.tracer.event("mem", "late")

    with on.tracer.span("alt", "plan"):
        thread = threading.Thread(target=work)
        thread.start()
    goes_on.set()
    thread.join()
    assert on.parents() == {"plan": None, "late": "plan"}


def test_a_worker_of_a_pool_hangs_each_task_from_whoever_asked_for_it(on: Traced) -> None:
    with ThreadPoolExecutor(1) as pool:
        with on.tracer.span("alt", "first"):
            pool.submit(on.tracer.event, "mem", "of_first").result()
        pool.submit(on.tracer.event, "mem", "of_nobody").result()
        with on.tracer.span("alt", "second"):
            list(pool.map(lambda name: on.tracer.event("mem", name), ["mapped"]))
    assert on.parents() == {
        "first": None, "of_first": "first", "of_nobody": None, "second": None, "mapped": "second"
    }  # fmt: skip


def test_threads_and_pools_are_as_they_were_when_tracing_ends(tmp_path: Path) -> None:
    def found() -> list[object]:
        return [threading.Thread.start, ThreadPoolExecutor.submit, ProcessPoolExecutor.submit]

    before = found()
    with traced(tmp_path / "trace.jsonl"):
        assert not set(found()) & set(before)
    assert found() == before


async def test_tasks_hang_from_the_span_that_made_them_and_not_from_each_other(on: Traced) -> None:
    async def work(name: str) -> None:
        async with on.tracer.span("mem", name):
            await asyncio.sleep(0)
            on.tracer.event("mem", f"in_{name}")
            await asyncio.to_thread(on.tracer.event, "mem", f"thread_of_{name}")

    with on.tracer.span("alt", "plan"):
        await asyncio.gather(work("a"), work("b"))
    assert on.parents() == {
        "a": "plan", "in_a": "a", "thread_of_a": "a",
        "b": "plan", "in_b": "b", "thread_of_b": "b", "plan": None,
    }  # fmt: skip


def test_what_a_consumer_does_is_not_under_the_generator_that_waits(on: Traced) -> None:
    def items() -> Iterator[int]:
        with on.tracer.span("mem", "generator"):
            on.tracer.event("mem", "before")
            yield 1
            on.tracer.event("mem", "after")

    with on.tracer.span("alt", "plan"):
        for _ in items():
            with on.tracer.span("alt", "consumer"):
                on.tracer.event("mem", "in_consumer")
            in_thread(lambda: on.tracer.event("mem", "thread_of_consumer"))
    assert on.parents() == {
        "plan": None, "generator": "plan", "before": "generator", "after": "generator", "consumer": "plan",
        "in_consumer": "consumer", "thread_of_consumer": "plan",
    }  # fmt: skip


async def test_a_task_that_a_generator_made_stays_under_it_while_that_waits(on: Traced) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        on.tracer.event("mem", "task")

    async def items() -> AsyncIterator[asyncio.Task[None]]:
        with on.tracer.span("mem", "generator"):
            yield asyncio.create_task(work())

    with on.tracer.span("alt", "plan"):
        async for task in items():
            with on.tracer.span("alt", "consumer"):
                await task
    assert on.parents() == {"plan": None, "generator": "plan", "task": "generator", "consumer": "plan"}


def test_what_a_context_manager_spans_is_under_it(on: Traced) -> None:
    @contextmanager
    def session() -> Iterator[None]:
        with on.tracer.span("mem", "session"):
            yield

    @contextmanager
    @on.tracer.span("mem", "decorated")
    def decorated() -> Iterator[None]:
        with on.tracer.span("mem", "inner"):
            yield

    with session():
        on.tracer.event("mem", "in_session")
    with decorated():
        on.tracer.event("mem", "in_decorated")
    assert on.parents() == {
        "session": None, "in_session": "session", "decorated": None, "inner": "decorated",
        "in_decorated": "inner",
    }  # fmt: skip


def test_a_generator_that_nobody_asks_any_more_is_no_error(on: Traced) -> None:
    def items() -> Iterator[int]:
        with on.tracer.span("mem", "abandoned"):
            yield 1

    with on.tracer.span("alt", "plan"):
        generator = items()
        next(generator)
        del generator
        gc.collect()
        on.tracer.event("mem", "next")
    assert on.parents() == {"abandoned": "plan", "plan": None, "next": "plan"}
    assert on.by_operation()["abandoned"]["status"] == "success"


def test_a_span_that_is_left_elsewhere_or_out_of_turn_is_nobodys_parent(on: Traced) -> None:
    outer, inner = on.tracer.span("alt", "outer"), on.tracer.span("alt", "inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    on.tracer.event("mem", "first")
    inner.__exit__(None, None, None)
    on.tracer.event("mem", "second")
    with on.tracer.span("alt", "plan"):
        moved = on.tracer.span("alt", "moved")
        moved.__enter__()
        in_thread(lambda: moved.__exit__(None, None, None))
        on.tracer.event("mem", "third")
    assert on.parents() == {
        "outer": None, "inner": "outer", "first": "inner", "second": None, "plan": None, "moved": "plan",
        "third": "plan",
    }  # fmt: skip


def test_spans_hang_from_what_is_adopted_and_carry_its_ops_trace_id(on: Traced) -> None:
    with on.tracer.span("sys", "server"):
        with on.tracer.adopted("alt_1705180800_a3f2", "ops-1"):
            assert on.tracer.current_id() == "alt_1705180800_a3f2"
            with on.tracer.span("sys", "handler"):
                on.tracer.event("sys", "inner")
            in_thread(lambda: on.tracer.event("sys", "thread"))
        with on.tracer.adopted("no id", "ops-2"):
            on.tracer.event("sys", "orphan")
        on.tracer.event("sys", "own")
    assert on.parents() == {
        "server": None, "handler": "alt_1705180800_a3f2", "inner": "handler", "thread": "alt_1705180800_a3f2",
        "orphan": None, "own": "server",
    }  # fmt: skip
    ops = {name: line["metadata"].get("ops_trace_id") for name, line in on.by_operation().items()}
    assert ops == {
        "server": None, "handler": "ops-1", "inner": None, "thread": "ops-1", "orphan": "ops-2", "own": None
    }  # fmt: skip


def test_spans_that_stay_open_in_turns_keep_no_memory_of_those_before(on: Traced) -> None:
    def items() -> Generator[int, None, None]:
        number = 0
        while True:
            with on.tracer.span("mem", "step"):
                yield number
            number += 1

    generator = items()
    for _ in range(100):
        with on.tracer.span("alt", "ask"):
            next(generator)
    assert chain_length() <= 2
    generator.close()


def test_spans_that_are_left_in_another_context_are_not_kept(on: Traced) -> None:
    elsewhere = copy_context()
    for _ in range(100):
        span = on.tracer.span("mem", "step")
        span.__enter__()
        elsewhere.run(span.__exit__, None, None, None)
    assert chain_length() == 1
    CURRENT.set(None)


def test_a_worker_process_of_a_pool_hangs_each_task_from_whoever_asked_for_it(tmp_path: Path) -> None:
    # The process's own, which is the one that its workers have.
    tracer.configure(enabled=True, output=tmp_path / "trace.jsonl")
    try:
        with ProcessPoolExecutor(1, get_context("fork")) as pool:
            with tracer.span("alt", "first"):
                pool.submit(tracer_event, "of_first").result()
            pool.submit(tracer_event, "of_nobody").result()
            with tracer.span("alt", "second"):
                list(pool.map(tracer_event, ["mapped"]))
    finally:
        tracer.close()
    lines = read_lines(tmp_path / "trace.jsonl")
    names = {line["trace_id"]: line["operation"] for line in lines}
    assert {line["operation"]: names.get(line["parent_id"]) for line in lines} == {
        "first": None, "of_first": "first", "of_nobody": None, "second": None, "mapped": "second"
    }  # fmt: skip


def tracer_event(operation: str) -> None:
    tracer.event("mem", operation)


def chain_length() -> int:
    node, length = CURRENT.get(), 0
    while node is not None:
        node, length = node.previous, length + 1
    return length


Step = tuple[int, str]
ACTORS = 4  # the first one is no generator


class Play:
    """Actors that open and close spans, tell events, and ask each other; the first is no generator.

    Each knows whom its next span has to hang from: its own newest one that is open, or else that of whoever
    asked it.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.expected: dict[str, str | None] = {}
        self.stacks: list[list[str]] = [[] for _ in range(ACTORS)]
        self.asked: list[int] = []
        self.actors = [self.actor(number) for number in range(1, ACTORS)]
        for actor in self.actors:
            next(actor)

    def actor(self, me: int) -> Generator[None, list[Step], None]:
        spans: list[Span] = []
        try:
            while True:
                steps = yield
                if not steps:
                    continue
                (_, word), *rest = steps
                if word == "open":
                    # Here and not in a function that both kinds of actors could have: its frame counts.
                    span = self.tracer.span("mem", self.name(me))
                    span.__enter__()
                    spans.append(span)
                else:
                    self.act(me, word, spans, rest)
        finally:
            while spans:
                spans.pop().__exit__(None, None, None)

    def run(self, script: list[list[Step]]) -> None:
        spans: list[Span] = []
        self.asked.append(0)
        for steps in script:
            (who, word), *rest = steps
            if who:
                self.ask(steps)
            elif word == "open":
                span = self.tracer.span("mem", self.name(0))
                span.__enter__()
                spans.append(span)
            else:
                self.act(0, word, spans, rest)
        self.event()
        for actor in self.actors:
            actor.close()
        while spans:
            spans.pop().__exit__(None, None, None)

    def act(self, me: int, word: str, spans: list[Span], rest: list[Step]) -> None:
        if word == "close" and spans:
            spans.pop().__exit__(None, None, None)
            self.stacks[me].pop()
        elif word == "event":
            self.event()
        elif word == "ask":
            self.ask(rest)

    def ask(self, steps: list[Step]) -> None:
        if steps and steps[0][0] not in self.asked:
            who = steps[0][0]
            self.asked.append(who)
            self.actors[who - 1].send(steps)
            self.asked.pop()

    def name(self, me: int) -> str:
        name = f"span{len(self.expected)}"
        self.expected[name] = self.parent()
        self.stacks[me].append(name)
        return name

    def event(self) -> None:
        name = f"event{len(self.expected)}"
        self.expected[name] = self.parent()
        self.tracer.event("mem", name)

    def parent(self) -> str | None:
        return next((self.stacks[who][-1] for who in reversed(self.asked) if self.stacks[who]), None)


STEPS = st.tuples(st.integers(0, ACTORS - 1), st.sampled_from(["open", "close", "event", "ask"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(STEPS, min_size=1, max_size=3), max_size=30))
def test_generators_that_take_turns_nest_as_their_blocks_do(script: list[list[Step]]) -> None:
    with TemporaryDirectory() as directory, traced(Path(directory) / "trace.jsonl") as tracing:
        play = Play(tracing.tracer)
        play.run(script)
        parents = tracing.parents()
        assert parents == play.expected
        assert not tracing.tracer.current_id()
