"""Functions whose calls are traced."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from functools import partial
from pathlib import Path

import pytest

from spritemesh.tracing.tracers import Tracer
from tests.harness.tracing import Traced, read_lines


def test_each_call_has_a_span_and_the_function_stays_what_it_was(on: Traced) -> None:
    @on.tracer.span("mem", "read", "store.py")
    def read(key: str, *, default: int = 0) -> tuple[str, int]:
        """Reads."""
        on.tracer.event("mem", "in")
        return key, default

    assert read("a", default=1) == ("a", 1)
    assert (read.__name__, read.__doc__) == ("read", "Reads.")
    with pytest.raises(TypeError):
        read()  # type: ignore[call-arg]
    lines = on.lines()
    assert [line["operation"] for line in lines] == ["in", "read", "read"]
    assert lines[0]["parent_id"] == lines[1]["trace_id"]
    assert lines[2]["metadata"]["error_class"] == "TypeError"


async def test_a_coroutine_function_is_traced_until_its_end(on: Traced) -> None:
    @on.tracer.span("mem", "read")
    async def read(value: int) -> int:
        await asyncio.sleep(0)
        on.tracer.event("mem", "in")
        return value

    class Reader:
        @on.tracer.span("mem", "method")
        async def __call__(self) -> int:
            return await read(3)

    assert inspect.iscoroutinefunction(read)
    assert await Reader()() == 3
    assert await on.tracer.span("mem", "outer")(partial(Reader().__call__))() == 3
    names = [line["operation"] for line in on.lines()]
    assert names == ["in", "read", "method", "in", "read", "method", "outer"]


def test_a_generator_is_traced_from_its_first_value_to_its_end(on: Traced) -> None:
    @on.tracer.span("mem", "scan")
    def scan() -> Generator[str, str, str]:
        got = yield "first"
        on.tracer.event("mem", got)
        try:
            yield "second"
        except KeyError:
            yield "third"
        return "end"

    generator = scan()
    assert not on.lines()
    assert next(generator) == "first"
    on.tracer.event("mem", "outside")
    assert generator.send("sent") == "second"
    assert generator.throw(KeyError()) == "third"
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    assert stopped.value.value == "end"
    assert on.parents() == {"outside": None, "sent": "scan", "scan": None}
    assert inspect.isgeneratorfunction(scan)


async def test_an_asynchronous_generator_takes_what_is_sent_thrown_and_closed(on: Traced) -> None:
    ends: list[str] = []

    @on.tracer.span("mem", "scan")
    async def scan() -> AsyncGenerator[str, str]:
        try:
            got = yield "first"
            on.tracer.event("mem", got)
            try:
                yield "second"
            except KeyError:
                yield "third"
        finally:
            await asyncio.sleep(0)
            ends.append("closed")

    generator = scan()
    assert await anext(generator) == "first"
    on.tracer.event("mem", "outside")
    assert await generator.asend("sent") == "second"
    assert await generator.athrow(KeyError()) == "third"
    await generator.aclose()
    assert [value async for value in scan_of(on)] == [1, 2]
    assert ends == ["closed"]
    assert on.parents() == {"outside": None, "sent": "scan", "scan": None, "short": None}
    assert {line["status"] for line in on.lines()} == {"success"}
    assert inspect.isasyncgenfunction(scan)


def scan_of(on: Traced) -> AsyncIterator[int]:
    @on.tracer.span("mem", "short")
    async def scan() -> AsyncIterator[int]:
        yield 1
        yield 2

    return scan()


async def test_an_asynchronous_generator_that_fails_is_an_error(on: Traced) -> None:
    @on.tracer.span("mem", "scan")
    async def scan() -> AsyncIterator[int]:
        yield 1
        raise KeyError("gone")

    with pytest.raises(KeyError):
        [value async for value in scan()]
    assert on.lines()[0]["status"] == "error"


def test_methods_stay_what_they_are(on: Traced) -> None:
    class Store:
        @on.tracer.span("mem", "bound")
        def bound(self) -> "Store":
            return self

        @on.tracer.span("mem", "of_class")
        @classmethod
        def of_class(cls) -> "type[Store]":
            return cls

        @on.tracer.span("mem", "static")
        @staticmethod
        def static() -> int:
            return 1

    store = Store()
    assert store.bound() is store
    assert store.of_class() is Store
    assert store.static() == 1
    assert on.tracer.span("mem", "length")(len)("abc") == 3
    assert [line["operation"] for line in on.lines()] == ["bound", "of_class", "static", "length"]


def test_each_call_decides_whether_it_is_traced(tmp_path: Path) -> None:
    tracer = Tracer()
    tracer.configure(enabled=False)

    @tracer.span("mem", "read")
    def read() -> int:
        return 1

    @tracer.span("nothing", "read")
    def wrong() -> int:
        return 2

    assert (read(), wrong()) == (1, 2)
    tracer.configure(enabled=True, output=tmp_path / "trace.jsonl")
    assert read() == 1
    with pytest.raises(ValueError, match="unknown layer: 'nothing'"):
        wrong()
    tracer.close()
    assert (read(), wrong()) == (1, 2)
    assert len(read_lines(tmp_path / "trace.jsonl")) == 1
