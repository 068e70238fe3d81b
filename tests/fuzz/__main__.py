"""Fuzz one target for long: `make fuzz TARGET=name MINUTES=30`, or `python -m tests.fuzz --help`.

Prints executions, executions a second, failures and the seed. What fails is kept in the corpus, where the
tests replay it from then on; so is what reached something new, as long as it is small. Exit 1 with failures.
"""

import argparse
import faulthandler
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.catalog import NAMES, load
from tests.fuzz.driver import Fuzzer, Target, corpus, keep, keep_new

_TELL_SECONDS = 60.0
# An input that takes so long hangs; where is told before the end.
_HANG_SECONDS = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz one target.")
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="as an earlier run told it")
    parser.add_argument("--replay", type=Path, help="run this one input only, and show what comes of it")
    options = parser.parse_args()
    target = load(options.target)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory, target.opened(Path(directory)) as run:
        if options.replay is not None:
            print(sorted(map(str, run(options.replay.read_bytes()))))
            return 0
        seed = random.randrange(2**32) if options.seed is None else options.seed
        print(f"target={target.name} seed={seed}", flush=True)
        fuzzer = Fuzzer(target, run, corpus(target.name), seed, guided=True)
        return _fuzz(target, fuzzer, options.minutes * 60, seed)


def _fuzz(target: Target, fuzzer: Fuzzer, seconds: float, seed: int) -> int:
    ending = time.monotonic() + seconds
    told: set[str] = set()
    while True:
        faulthandler.dump_traceback_later(_TELL_SECONDS + _HANG_SECONDS, exit=True)
        left = ending - time.monotonic()
        report = fuzzer.fuzz(seconds=min(_TELL_SECONDS, left))
        faulthandler.cancel_dump_traceback_later()
        for failure in report.failures:
            if failure.key not in told:
                told.add(failure.key)
                kept = keep(target.name, failure.data, "fail")
                print(f"FAILURE {failure.key}, kept as {kept}\n{failure.told}", flush=True)
        done = time.monotonic() >= ending
        print(
            f"target={target.name} seconds={report.seconds:.0f} executions={report.executions}"
            f" per_second={report.executions / report.seconds:.0f} features={report.features}"
            f" new={len(report.new)} failures={len(report.failures)} seed={seed}"
            f"{' done' if done else ''}",
            flush=True,
        )
        if done:
            print(f"kept {keep_new(target.name, report.new)} new inputs", flush=True)
            return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
