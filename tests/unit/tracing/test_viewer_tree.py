"""The whole tree of a span, however its lines lie."""

import json
import random
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from spritemesh.tracing.reading import order, reader, tree
from spritemesh.tracing.reading.branches import branches
from spritemesh.tracing.reading.order import Order
from spritemesh.tracing.reading.reader import LineFiles, opened
from spritemesh.tracing.reading.records import Damage, facts_of
from spritemesh.tracing.reading.tree import Span, Stretch, Tree, find_below, find_tree, second_of
from tests.harness.tracefiles import START, Event, event, line, members_of_tree, trees, write


def found_tree(path: Path, trace_id: str, *more: Path) -> Tree | None:
    with opened(map(str, (path, *more))) as files:
        return find_tree(files, trace_id, Damage())


def ids(found: Tree | None) -> list[str]:
    assert found is not None
    return sorted(span.facts.trace_id for span in found.spans)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files were large: many blocks, and an order to be looked at."""
    monkeypatch.setattr(reader, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(order, "_SMALLEST_BYTES", 1)
    monkeypatch.setattr(order, "SLACK_SECONDS", 1.0)


def shuffled(documents: Sequence[Event]) -> list[Event]:
    return random.Random(2).sample(documents, len(documents))


def swapped_halves(documents: Sequence[Event]) -> list[Event]:
    middle = len(documents) // 2
    return [*documents[middle:], *documents[:middle]]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("arranged", [list, shuffled, swapped_halves])
@pytest.mark.parametrize("length", [0.1, 4.0])
def test_tree_of_any_span_is_what_looking_at_everything_finds(
    tmp_path: Path, arranged: Callable[[Sequence[Event]], list[Event]], length: float
) -> None:
    documents = trees(40, length=length)
    path = write(tmp_path / "t", arranged(documents))
    for document in random.Random(3).sample(documents, 8):
        found = found_tree(path, document["trace_id"])
        assert ids(found) == sorted(members_of_tree(documents, document["trace_id"]))


@pytest.mark.usefixtures("small_steps")
def test_tree_goes_over_rotated_files_and_several_paths(tmp_path: Path) -> None:
    documents = trees(20)
    third = len(documents) // 3
    write(tmp_path / "t.1", documents[:third])
    write(tmp_path / "t", documents[third : 2 * third])
    other = write(tmp_path / "u", documents[2 * third :])
    for document in documents[third - 5 : third + 5]:
        found = found_tree(tmp_path / "t", document["trace_id"], other)
        assert ids(found) == sorted(members_of_tree(documents, document["trace_id"]))


def test_other_writers_spelling_and_short_ids(tmp_path: Path) -> None:
    documents = trees(3, digits=4, gap=1000)
    spelled = [dict(reversed(document.items())) for document in documents]
    path = tmp_path / "t"
    path.write_text("".join(json.dumps(document, indent=None) + " \r\n" for document in spelled))
    for document in documents:
        assert ids(found_tree(path, document["trace_id"])) == sorted(
            members_of_tree(documents, document["trace_id"])
        )


def test_ids_of_another_form_are_followed_too(tmp_path: Path) -> None:
    documents = [event("leaf", "4bf92f35"), event("4bf92f35", "r/0"), event("r/0"), event("other")]
    path = write(tmp_path / "t", documents)
    assert ids(found_tree(path, "4bf92f35")) == ["4bf92f35", "leaf", "r/0"]


def test_child_that_outlives_its_parents_and_its_own_children_belong_to_the_tree(tmp_path: Path) -> None:
    chain = [f"sys_{START + 100 * number}_{number:04}" for number in range(30)]
    documents = [
        event(trace_id, parent, at=START) for trace_id, parent in zip(chain, [None, *chain], strict=False)
    ]
    for arranged in (documents, documents[::-1]):
        assert ids(found_tree(write(tmp_path / "t", arranged), chain[17])) == chain


def test_too_many_waiting_lines_take_more_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MAX_WAITING", 3)
    documents = trees(8, gap=0.01)
    path = write(tmp_path / "t", shuffled(documents))
    for document in documents[::7]:
        assert ids(found_tree(path, document["trace_id"])) == sorted(
            members_of_tree(documents, document["trace_id"])
        )


def test_root_without_a_line_is_said_and_holds_the_tree_together(tmp_path: Path) -> None:
    root, here, there = f"alt_{START}_0000", f"mem_{START + 50}_0001", f"mem_{START + 90}_0002"
    path = write(tmp_path / "t", [event(here, root), event("sys_1_ffff"), event(there, root)])
    for asked in (here, root):
        found = found_tree(path, asked)
        assert found is not None
        assert (found.root_id, found.is_root_missing, ids(found)) == (root, True, [here, there])
        assert [(branch.depth, branch.trace_id) for branch in branches(found)] == [
            (0, root),
            (1, here),
            (1, there),
        ]
    assert found_tree(path, "alt_1_none") is None


def test_circles_and_doubles_end(tmp_path: Path) -> None:
    one, two, three = (f"alt_{START}_000{number}" for number in range(3))
    path = write(tmp_path / "t", [event(one, two), event(two, one), event(three, one), event(three, one)])
    found = found_tree(path, three)
    assert found is not None
    assert len(found.spans) == 4
    assert sorted(branch.trace_id for branch in branches(found)) == sorted([one, two, three, three])
    own = write(tmp_path / "u", [event(one, one)])
    assert ids(found_tree(own, one)) == [one]


def test_large_tree_is_cut_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_SPANS", 10)
    root = f"alt_{START}_0000"
    children = [event(f"mem_{START}_{number:04}", root) for number in range(1, 31)]
    found = found_tree(write(tmp_path / "t", [*children, event(root)]), root)
    assert found is not None
    assert (len(found.spans), found.left_out) == (10, 21)


def test_of_a_large_tree_what_it_hangs_from_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_SPANS", 10)
    root = f"alt_{START}_0000"
    children = [event(f"mem_{START}_{number:04}", root) for number in range(1, 31)]
    with opened([str(write(tmp_path / "t", [event(root), *children, *children[:10]]))]) as files:
        (first, *_), left_out = find_below(files, roots(files, root), Damage())
        assert (first.facts.trace_id, left_out) == (root, 21)


@pytest.mark.usefixtures("small_steps")
def test_tree_that_a_clock_put_into_the_future_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "_SAMPLES", 10)
    documents = trees(60, gap=5)
    ahead = START + 36_000
    root, child = f"alt_{ahead}_0000", f"alt_{ahead}_0001"
    documents[200:200] = [event(child, root, at=ahead), event(root, at=ahead)]
    with opened([str(write(tmp_path / "t", documents))]) as files:
        # So few lines are among those that are looked at by chance only.
        assert Order(files, files.regions[0]).is_known
        found, _ = find_below(files, roots(files, root), Damage())
        assert [span.facts.trace_id for span in found] == [child, root]


def roots(files: LineFiles, trace_id: str) -> list[Span]:
    """The lines of that span, found by looking at everything."""
    placed = [(position, line) for chunk in files.forward() for position, line in chunk.placed()]
    spans = [Span(position, facts_of(line), line) for position, line in placed]
    return [span for span in spans if span.facts.trace_id == trace_id]


def test_deep_tree_is_arranged(tmp_path: Path) -> None:
    chain = [f"sys_{START}_{number:05}" for number in range(3000)]
    documents = [event(trace_id, parent) for trace_id, parent in zip(chain, [None, *chain], strict=False)]
    found = found_tree(write(tmp_path / "t", documents[::-1]), chain[5])
    assert found is not None
    assert [branch.depth for branch in branches(found)] == list(range(3000))


def test_malformed_lines_on_the_way_are_counted(tmp_path: Path) -> None:
    root = f"alt_{START}_0000"
    path = tmp_path / "t"
    path.write_bytes(b'{"trace_id":"%s"\n' % root.encode() + line(event(root)) + line(event("a"))[:30])
    damage = Damage()
    with opened([str(path)]) as files:
        assert ids(find_tree(files, root, damage)) == [root]
    assert damage.count == 1


@pytest.mark.parametrize(
    ("first", "last", "needles"),
    [
        (1795290001, 1795290001, [b"_1795290001_"]),
        (1795290001, 1795290005, [b"_179529000"]),
        (1795290009, 1795290010, [b"_1795290009_", b"_1795290010_"]),
        (1795290009, 1795290025, [b"_17952900"]),
        (1795290000, 1895290000, [b"_17", b"_18"]),
        (5, 1795290000, []),
        (0, 0, [b"_0_"]),
    ],
)
def test_seconds_are_looked_for_by_the_digits_that_they_share(
    first: int, last: int, needles: list[bytes]
) -> None:
    stretch = Stretch.around(first, last)
    assert stretch.needles == needles
    assert stretch.first <= first <= last <= stretch.last


@pytest.mark.parametrize(
    ("trace_id", "second"),
    [("alt_17_a3f2", 17), ("alt_017_a3f2", None), ("alt_17", None), ("alt_x_a3f2", None), ("a_1_b_c", None)],
)
def test_second_of_an_id(trace_id: str, second: int | None) -> None:
    assert second_of(trace_id) == second


@pytest.mark.usefixtures("small_steps")
def test_order_is_relied_on_only_where_there_is_one(tmp_path: Path) -> None:
    documents = trees(60, gap=5)
    paths = [write(tmp_path / "t", documents), write(tmp_path / "u", swapped_halves(documents))]
    with opened(map(str, paths)) as files:
        ordered, unordered = (Order(files, region) for region in files.regions)
        begin = ordered.begin(START + 150)
        assert ordered.is_known
        assert files.regions[0].end / 3 < begin < files.regions[0].end / 2
        assert ordered.begin(None) == ordered.begin(0) == 0
        assert not unordered.is_known
        assert unordered.begin(START + 150) == files.regions[1].start


def test_memory_does_not_follow_the_size_of_the_file(tmp_path: Path) -> None:
    documents = trees(20, gap=0.001)
    path = tmp_path / "t"
    path.write_bytes(b"".join(map(line, documents)) * 20)
    wanted = event(f"alt_{START}_0000")
    with path.open("ab") as file:
        file.write(line(wanted))
    tracemalloc.start()
    assert ids(found_tree(path, wanted["trace_id"])) == [wanted["trace_id"]]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8e6
