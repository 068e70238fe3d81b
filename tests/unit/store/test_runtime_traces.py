"""manager.store.runtime_traces: whatever kills the manager between two writes, each line is stored once."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.core.cursor import Place
from manager.core.runtime_traces import TraceCursor
from manager.store import loop_files
from manager.store.paths import LoopFiles
from manager.store.runtime_traces import TraceStore
from spritemesh import rotation
from spritemesh.errors import OpsError
from tests.harness.spans import span

# Small, so that files move aside all the time.
ROTATE_BYTES = 1500
DIGEST = b"d" * 32
# Where a manager dies in writing a batch.
STEPS = ("whole", "before", "within", "appended")


class Killed(Exception):
    """As SIGKILL: nothing is done afterwards."""


class Mortal(TraceStore):
    """Dies where it is told to."""

    def __init__(self, paths: LoopFiles, dies: str) -> None:
        super().__init__(paths, "alpha", rotate_bytes=ROTATE_BYTES)
        self._dies = dies

    def _append(self, data: bytes) -> None:
        if self._dies != "before":
            super()._append(data[: len(data) // 2] if self._dies == "within" else data)
        if self._dies != "whole":
            raise Killed


def stored(paths: LoopFiles) -> list[int]:
    """Numbers of the spans in all generations; every line must be whole."""
    lines: list[bytes] = []
    with rotation.generations(paths.runtime_traces) as opened:
        for generation in reversed(opened):
            lines += Path(generation.name).read_bytes().splitlines()
    return [int(json.loads(line)["trace_id"].rpartition("_")[2], 16) for line in lines]


def place(line: int) -> dict[str, Place]:
    return {"trace.jsonl": Place(line, DIGEST, DIGEST)} if line else {}


def reached(store: TraceStore) -> int:
    return store.open().places.get("trace.jsonl", Place()).line


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(STEPS)), max_size=14))
def test_killed_anywhere_each_line_is_stored_once(batches: list[tuple[int, str]]) -> None:
    with TemporaryDirectory() as root:
        paths = loop_files(root, "alpha")
        store: TraceStore = Mortal(paths, "whole")
        for count, dies in [*batches, (1, "whole")]:
            # Who comes next reads on from the cursor, as the sprite's file is read on.
            store = store if dies == "whole" else Mortal(paths, dies)
            line = reached(store)
            lines = [span(number) for number in range(line + 1, line + count + 1)]
            try:
                store.write(lines, place(line + count))
            except Killed:
                store = Mortal(paths, "whole")
        last = reached(Mortal(paths, "whole"))
        found = stored(paths)
        # The oldest file goes when there are too many; what is left follows each other without a gap.
        assert found == list(range(last - len(found) + 1, last + 1))
        assert len(found) == last or Path(f"{paths.runtime_traces}.{rotation.KEEP}").exists()


@pytest.fixture
def paths(tmp_path: Path) -> LoopFiles:
    return loop_files(str(tmp_path), "alpha")


def test_first_lines_without_a_cursor_are_cut_off(paths: LoopFiles) -> None:
    store = Mortal(paths, "appended")
    with pytest.raises(Killed):
        store.write([span(1), span(2)], place(2))
    TraceStore(paths, "alpha").write([span(1)], place(1))
    assert stored(paths) == [1]


class FullDisk(TraceStore):
    """Has no room for another cursor, now and then."""

    is_full = False

    def _save(self, cursor: TraceCursor) -> None:
        if self.is_full:
            raise OpsError("telemetry_unwritable", "no space")
        super()._save(cursor)


def test_lines_that_cannot_be_stored_may_be_tried_again(paths: LoopFiles) -> None:
    store = FullDisk(paths, "alpha")
    store.write([span(1)], place(1))
    store.is_full = True
    for _ in range(2):
        with pytest.raises(OpsError, match="no space"):
            store.write([span(2)], place(2))
    store.is_full = False
    store.write([span(2)], place(2))
    assert stored(paths) == [1, 2]


@pytest.mark.parametrize("name", ["runtime_traces", "traces_cursor"])
def test_directory_in_the_place_of_a_file_is_told(paths: LoopFiles, name: str) -> None:
    path = Path(getattr(paths, name))
    path.mkdir(parents=True)
    store = TraceStore(paths, "alpha")
    with pytest.raises(OpsError) as failure:
        store.write([span(1)], place(1))
    assert (failure.value.reason, str(path) in failure.value.message) == ("telemetry_unwritable", True)
    path.rmdir()
    store.write([span(1)], place(1))
    assert stored(paths) == [1]


def test_removed_stored_file_is_begun_anew(paths: LoopFiles) -> None:
    store = TraceStore(paths, "alpha")
    store.write([span(1), span(2)], place(2))
    Path(paths.runtime_traces).unlink()
    store.write([span(3)], place(3))
    assert stored(paths) == [3]
    again = TraceStore(paths, "alpha")
    again.write([span(4)], place(4))
    assert (stored(paths), reached(again)) == ([3, 4], 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"stored":{"bytes":-1},"files":{}}',
        '{"stored":{"bytes":5},"files":{}}',
        '{"stored":{"bytes":0},"files":[]}',
        '{"stored":{"bytes":0},"files":{"a":{"line":1}}}',
        '{"stored":{"bytes":0},"files":{},"mark":"m"}',
        '{"stored":{"bytes":0},"files":{"\\ud800":{"line":0}}}',
        '{"stored":{"bytes":0},"files":{"":{"line":0}}}',
        "\x00" * 40,
    ],
)
def test_damaged_cursor_starts_over_behind_what_is_stored(paths: LoopFiles, text: str) -> None:
    TraceStore(paths, "alpha").write([span(1)], place(1))
    Path(paths.traces_cursor).write_text(text)
    store = TraceStore(paths, "alpha")
    assert reached(store) == 0
    assert store.problem is not None
    assert (store.problem.reason, paths.traces_cursor in store.problem.message) == ("cursor_invalid", True)
    store.write([span(1), span(2)], place(2))
    assert stored(paths) == [1, 1, 2]
    assert reached(TraceStore(paths, "alpha")) == 2


def test_size_within_a_line_is_told_and_nothing_is_cut(paths: LoopFiles) -> None:
    TraceStore(paths, "alpha").write([span(1), span(2)], place(2))
    cursor = json.loads(Path(paths.traces_cursor).read_bytes())
    cursor["stored"]["bytes"] -= 5
    Path(paths.traces_cursor).write_text(json.dumps(cursor))
    store = TraceStore(paths, "alpha")
    assert reached(store) == 0
    assert store.problem is not None
    assert (store.problem.reason, stored(paths)) == ("cursor_invalid", [1, 2])
