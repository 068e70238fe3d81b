"""`python -m bench [NAME ...] [--quick] [--check]`: print a table, leave JSON."""

import argparse
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from bench import (
    cold,
    control,
    durable,
    fleet,
    idle,
    live,
    reconcile,
    reconnects,
    replay,
    snapshot,
    steady,
    trace,
    tracing_read,
    tracing_write,
)
from bench.fixtures import Workplace
from bench.measure import Figure, number
from spritemesh import jsontext
from spritemesh.files import write_atomic

BENCHMARKS: dict[str, Callable[[Workplace], list[Figure]]] = {
    "snapshot": snapshot.run,
    "cold": cold.run,
    "replay": replay.run,
    "reconcile": reconcile.run,
    "live": live.run,
    "durable": durable.run,
    "steady": steady.run,
    "fleet": fleet.run,
    "idle": idle.run,
    "reconnects": reconnects.run,
    "control": control.run,
    "trace": trace.run,
    "tracing_write": tracing_write.run,
    "tracing_read": tracing_read.run,
}
_RESULT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "out", "latest.json")


def main() -> int:
    args = _arguments()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        sys.stderr.write(f"error: unknown benchmark: {unknown[0]} (there are {', '.join(BENCHMARKS)})\n")
        return 2
    figures: list[Figure] = []
    failed: list[str] = []
    place = Workplace(quick=args.quick)
    began = time.monotonic()
    try:
        for name in args.names or BENCHMARKS:
            started = time.monotonic()
            try:
                figures += BENCHMARKS[name](place)
            except Exception:
                # The figures of the others are worth having all the same.
                traceback.print_exc()
                failed.append(name)
            sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
    finally:
        place.close()
    sys.stdout.write(_table(figures))
    write_atomic(_RESULT, jsontext.pretty(_document(figures, quick=args.quick)) + b"\n")
    missed = sum(not figure.met for figure in figures)
    verdict = "every goal met" if not missed else f"{missed} of the goals missed"
    unmeasured = [f"{figure.benchmark} {figure.what}" for figure in figures if figure.unmeasured]
    if failed + unmeasured:
        verdict += f"; not measured: {', '.join(failed + unmeasured)}"
    sys.stdout.write(f"\n{verdict}; {time.monotonic() - began:.0f} s; figures in {_RESULT}\n")
    return 1 if failed or (missed and args.check) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure spritemesh.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: some minutes, and noisier")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    return parser.parse_args()


def _table(figures: Sequence[Figure]) -> str:
    header = ("benchmark", "figure", "value", "goal", "", "ours, median [range]", "beside")
    rows = [header, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    bound = figure.bound
    if figure.unmeasured:
        goal = bound.text(figure.unit) if bound else ""
        return figure.benchmark, figure.what, "not measured", goal, "", "", figure.unmeasured
    return (
        figure.benchmark,
        figure.what,
        f"{number(figure.value)} {figure.unit}",
        bound.text(figure.unit) if bound else "",
        ("pass" if figure.met else "MISS") if bound else "",
        figure.ours.text,
        f"{figure.baseline}: {figure.base.text}" if figure.base else "",
    )


def _document(figures: Sequence[Figure], *, quick: bool) -> jsontext.JSON:
    return {
        "measuredAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quick": quick,
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "load": os.getloadavg()[0],
        },
        "figures": [_figure(figure) for figure in figures],
    }


def _figure(figure: Figure) -> jsontext.JSON:
    bound = figure.bound
    return {
        "benchmark": figure.benchmark,
        "figure": figure.what,
        "value": None if figure.unmeasured else figure.value,
        "unmeasured": figure.unmeasured or None,
        "unit": figure.unit,
        "goal": bound.text(figure.unit) if bound else None,
        "met": figure.met if bound and not figure.unmeasured else None,
        "ours": {"unit": figure.ours.unit, "median": figure.ours.median, "values": figure.ours.values},
        "baseline": figure.baseline or None,
        "base": {"unit": figure.base.unit, "median": figure.base.median, "values": figure.base.values}
        if figure.base
        else None,
    }


if __name__ == "__main__":
    sys.exit(main())
