"""Spans in a process of its own, which tells what they cost.

    python -m bench.spans off COUNT
    python -m bench.spans ours|otel THREADS BURSTS REST FILE

The CPU of `ours` and `otel` is that of all threads, the one that writes included, from the first span until
each line is in the file. Between bursts, which are shorter than either queue, the writer is waited for, so
that no span is lost.
"""

import gc
import itertools
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import msgspec
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bench.measure import percentile
from bench.receiver import tell
from spritemesh.tracing import tracer

# Spans of all threads together, between two waits.
BURST = 16_000
# Of threads that rest, which takes longer.
RESTING_BURST = 4_000
_QUEUE = 20_000
_SECONDS = 60.0
_FACTS = {"from_level": "L3", "to_level": "L2"}

Work = Callable[[], None]


class Kit(NamedTuple):
    """A way of tracing. root: what a thread's spans hang from. span: one of them, begun, filled and ended.

    flush: returns when all is written.
    """

    root: Callable[[], AbstractContextManager[object]]
    span: Work
    flush: Work


def _ours(path: str) -> Kit:
    tracer.configure(enabled=True, output=path)

    def span() -> None:
        with tracer.span("altitude", "transition", "bench", "a ticket") as ctx:
            ctx.set_output("done", **_FACTS)

    def flush() -> None:
        if not tracer.flush(_SECONDS) or tracer.dropped:
            raise RuntimeError(f"{tracer.dropped} spans were dropped")

    return Kit(lambda: tracer.span("altitude", "plan", "bench", "a thread"), span, flush)


class _Lines(SpanExporter):
    """Writes the same facts as our lines have, with the same encoder, a write for each batch."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        os.write(self._file, b"".join(map(_line, spans)))
        return SpanExportResult.SUCCESS


def _line(span: ReadableSpan) -> bytes:
    assert span.context is not None
    assert span.start_time is not None
    assert span.end_time is not None
    facts = {
        "trace_id": trace.format_span_id(span.context.span_id),
        "parent_id": trace.format_span_id(span.parent.span_id) if span.parent else None,
        "timestamp": span.start_time,
        "operation": span.name,
        "duration_ms": (span.end_time - span.start_time) / 1e6,
        "status": span.status.status_code.name,
        "metadata": dict(span.attributes or {}),
    }
    return msgspec.json.encode(facts) + b"\n"


def _otel(path: str) -> Kit:
    processor = BatchSpanProcessor(_Lines(path), max_queue_size=_QUEUE)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    start = provider.get_tracer("bench").start_as_current_span

    def span() -> None:
        facts = {"hrm_layer": "altitude", "component": "bench", "input_summary": "a ticket"}
        with start("transition", attributes=facts) as current:
            current.set_attributes({"output_summary": "done", **_FACTS})

    def flush() -> None:
        processor.force_flush()

    return Kit(lambda: start("plan"), span, flush)


def _thread(kit: Kit, count: int, rest: float, gate: threading.Barrier, taken: list[int]) -> None:
    """Append what each of so many spans took, nanoseconds. gate: where all threads wait for each other."""
    clock, span = time.perf_counter_ns, kit.span
    gate.wait()
    with kit.root():
        for _ in itertools.repeat(None, count):
            before = clock()
            span()
            taken.append(clock() - before)
            if rest:
                time.sleep(rest)


def _burst(kit: Kit, threads: int, rest: float, taken: list[list[int]]) -> None:
    """rest: of each thread between two spans, seconds; 0: at full speed."""
    gate = threading.Barrier(threads)
    each = _burst_of(rest) // threads
    running = [threading.Thread(target=_thread, args=(kit, each, rest, gate, found)) for found in taken]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    kit.flush()


def _burst_of(rest: float) -> int:
    return RESTING_BURST if rest else BURST


def _on(kind: str, threads: int, bursts: int, rest: float, path: str) -> None:
    kit = _ours(path) if kind == "ours" else _otel(path)
    taken: list[list[int]] = [[] for _ in range(threads)]
    _burst(kit, threads, rest, [[] for _ in range(threads)])
    gc.collect()
    before = _cpu_seconds()
    for _ in range(bursts):
        _burst(kit, threads, rest, taken)
    cpu = _cpu_seconds() - before
    spans = list(itertools.chain.from_iterable(taken))
    with open(path, "rb") as file:
        lines = sum(1 for _ in file)
    if lines != (bursts + 1) * (_burst_of(rest) + threads):
        raise RuntimeError(f"{lines} lines in the file, of {bursts + 1} bursts")
    tell({"p50": percentile(spans, 50) / 1e9, "p99": percentile(spans, 99) / 1e9, "cpu": cpu / len(spans)})


def _off(count: int) -> None:
    bare = trace.get_tracer("bench")

    def span() -> None:
        for _ in itertools.repeat(None, count):
            with tracer.span("altitude", "transition", "bench", "a ticket"):
                pass

    def event() -> None:
        for _ in itertools.repeat(None, count):
            tracer.event("altitude", "transition", "bench", "a ticket")

    def api() -> None:
        for _ in itertools.repeat(None, count):
            with bare.start_as_current_span("transition"):
                pass

    tell({"span": _each(span, count), "event": _each(event, count), "api": _each(api, count)})


def _each(work: Work, count: int) -> float:
    """Seconds of processor time that each of `count` turns of `work` takes."""
    work()
    before = time.process_time()
    work()
    return (time.process_time() - before) / count


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    kind, *words = sys.argv[1:]
    if kind == "off":
        _off(int(words[0]))
    else:
        threads, bursts, rest, path = words
        _on(kind, int(threads), int(bursts), float(rest), path)


if __name__ == "__main__":
    main()
