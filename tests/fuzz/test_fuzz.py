"""The corpus replayed, and a short run of new inputs a target; `make fuzz` runs one for long.

The seed does not change: a build should fail by what was changed, and not by chance.
"""

from pathlib import Path

import pytest

from tests.fuzz.catalog import NAMES, load
from tests.fuzz.driver import CORPUS, Fuzzer, Target, corpus
from tests.fuzz.mutations import MAX_BYTES
from tests.fuzz.sections import join, split

_SECONDS = 1.0
_EXECUTIONS = 200
_CORPUS_BYTES = 200_000


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_the_corpus_and_new_ones_break_nothing(name: str, tmp_path: Path) -> None:
    target = load(name)
    with target.opened(tmp_path) as run:
        seeds = corpus(target.name)
        assert seeds
        fuzzer = Fuzzer(target, run, seeds, 1, guided=False)
        report = fuzzer.fuzz(seconds=_SECONDS, most=_EXECUTIONS)
    assert report.executions > len(seeds)
    assert not report.failures, report.failures[0].told


def test_the_corpus_stays_small() -> None:
    kept = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} == set(NAMES)
    assert sum(path.stat().st_size for path in kept) < _CORPUS_BYTES


def test_a_failure_is_found_told_once_and_made_small(tmp_path: Path) -> None:
    def run(data: bytes) -> list[str]:
        assert b"null" not in data, "met"
        return [str(len(data) % 7)]

    seed = b'{"timestamp":"2024-03-11T09:00:00Z","event":"loop_start","n":[1,2,3]}\n' * 3
    target = Target("none", None, in_process=True)  # type: ignore[arg-type]  # what opens it is not asked
    report = Fuzzer(target, run, [seed], 7, guided=True).fuzz(seconds=10, most=3000)
    assert [failure.data for failure in report.failures] == [b"null"]
    assert report.failures[0].key.startswith("AssertionError at test_fuzz.py:")
    assert all(len(data) <= MAX_BYTES for data in report.new)


def test_sections_come_back_as_they_were() -> None:
    parts = [("a.json", b"{}"), ("b c", b""), ("d", b"x\n\ny\xff")]
    assert split(join(parts)) == parts
    assert split(b"before\n--- a\n1") == [("", b"before\n"), ("a", b"1")]
