"""The fuzzer: inputs of a corpus, mutated; what reaches something new is mutated further; what fails is kept.

A target runs one input and returns what it saw of interest: words for kinds of answers. It raises whatever
is wrong: AssertionError for a promise that does not hold, anything else for a defect. Inputs are what can be
replayed, so a failure is a file.
"""

import hashlib
import random
import resource
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.coverage import Coverage
from tests.fuzz.mutations import Mutator

CORPUS = Path(__file__).parent / "corpus"
# Of one target, what failed not counted: a checkout should not grow by a megabyte of noise.
KEPT_BYTES = 16 * 1024
_KEPT_INPUT_BYTES = 2048
# Each is replayed by the tests.
_KEPT_INPUTS = 24
# Processor time and memory that one input of at most 64 KiB may take.
_INPUT_SECONDS = 5.0
_INPUT_GROWTH_KIB = 256 * 1024
# Line tracing costs several times the work itself: one input in so many is looked at so closely.
_TRACED = 4
_MAX_POOL = 4096
_MINIMIZING_RUNS = 300
_ROOT = Path(__file__).parents[2]
_OURS = tuple(f"{_ROOT / name}/" for name in ("sprite_agent", "spritemesh", "manager", "tests"))

Run = Callable[[bytes], Iterable[Hashable]]


class Target(NamedTuple):
    """What is fuzzed. opened: given an empty directory, what runs one input. words: that its inputs are made
    of. in_process: whether the lines that an input reaches can be seen."""

    name: str
    opened: Callable[[Path], AbstractContextManager[Run]]
    words: Sequence[bytes] = ()
    in_process: bool = True


class Failure(NamedTuple):
    """An input that failed. key: the same for failures that are likely the same defect."""

    data: bytes
    key: str
    told: str


class Report(NamedTuple):
    """What a run came to. new: inputs that reached something new, smallest first."""

    executions: int
    seconds: float
    features: int
    failures: list[Failure]
    new: list[bytes]


def corpus(name: str) -> list[bytes]:
    """The inputs of a target that are kept, in an order that does not change."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def keep(name: str, data: bytes, kind: str) -> Path:
    """Put an input into the corpus. kind: begins the file's name."""
    directory = CORPUS / name
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def keep_new(name: str, inputs: Iterable[bytes]) -> int:
    """Keep small inputs as long as the target's share lasts; how many were."""
    found = list((CORPUS / name).glob("new-*"))
    room = KEPT_BYTES - sum(path.stat().st_size for path in found)
    kept = 0
    for data in inputs:
        room -= len(data)
        if room < 0 or len(found) + kept == _KEPT_INPUTS:
            break
        if len(data) <= _KEPT_INPUT_BYTES:
            keep(name, data, "new")
            kept += 1
    return kept


class Fuzzer:
    """Runs inputs of one target, and remembers what they reached."""

    def __init__(self, target: Target, run: Run, seeds: Sequence[bytes], seed: int, *, guided: bool) -> None:
        """guided: follow the lines that inputs reach, too, and not only the kinds of answers."""
        self._run = run
        self._guided = guided and target.in_process
        self._rng = random.Random(seed)
        self._mutator = Mutator(target.words)
        self._coverage = Coverage()
        self._features: set[Hashable] = set()
        self._pool: list[bytes] = []
        self._new: list[bytes] = []
        self._failures: dict[str, Failure] = {}
        self._executions = 0
        self._began = time.monotonic()
        for data in seeds:
            self._take(data, traced=self._guided)
            self._pool.append(data)
        self._new.clear()

    def fuzz(self, *, seconds: float, most: int = 2**63) -> Report:
        """Try new inputs for so long, and so many at most."""
        ending = time.monotonic() + seconds
        rng = self._rng
        last = self._executions + most
        while time.monotonic() < ending and self._executions < last:
            # Half of the time among the newest: there is more behind them.
            pool = self._pool[-32:] if rng.random() < 0.5 else self._pool
            data = self._mutator.mutated(rng.choice(pool), rng.choice(self._pool), rng)
            traced = self._guided and self._executions % _TRACED == 0
            if self._take(data, traced=traced):
                self._pool.append(data)
                self._new.append(data)
                if len(self._pool) > _MAX_POOL:
                    del self._pool[rng.randrange(_MAX_POOL // 2)]
        return Report(
            self._executions,
            time.monotonic() - self._began,
            len(self._features),
            list(self._failures.values()),
            sorted(self._new, key=len),
        )

    def _take(self, data: bytes, *, traced: bool) -> bool:
        """Run an input; whether it reached something new."""
        self._executions += 1
        failure = self._tried(data, traced=traced)
        if isinstance(failure, Failure):
            if failure.key not in self._failures:
                self._failures[failure.key] = self._minimized(failure)
            return False
        found = failure - self._features
        self._features |= found
        return bool(found)

    def _tried(self, data: bytes, *, traced: bool = False) -> Failure | set[Hashable]:
        """The failure of an input, or all that it reached."""
        began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            if traced:
                with self._coverage.watching():
                    found = set(self._run(data))
                found |= self._coverage.lines
            else:
                found = set(self._run(data))
            took = time.process_time() - began
            grew = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
            assert took < _INPUT_SECONDS, f"took {took:.1f} s of processor time"
            assert grew < _INPUT_GROWTH_KIB, f"took {grew} KiB of memory"
        except Exception as error:
            return Failure(data, _key(error), "".join(traceback.format_exception(error)))
        return found

    def _minimized(self, failure: Failure) -> Failure:
        """The same failure by a shorter input, as far as a few hundred tries lead."""
        size, tries = len(failure.data) // 2, _MINIMIZING_RUNS
        while size and tries:
            at = 0
            while at < len(failure.data) and tries:
                tries -= 1
                shorter = self._tried(failure.data[:at] + failure.data[at + size :])
                if isinstance(shorter, Failure) and shorter.key == failure.key:
                    failure = shorter
                else:
                    at += size
            size //= 2
        return failure


def _key(error: Exception) -> str:
    """Kind of a failure, and the innermost line of ours that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_OURS)]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere of ours"
    return f"{type(error).__name__} at {where}"
