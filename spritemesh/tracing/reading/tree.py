"""All of the tree that one span belongs to: up to its root, and from there all that hangs from it.

Lines name only their parent, so that a tree is gathered in passes. First up, from parent to parent, by the
bytes of the id: a parent's line is behind that of its child nearly always. Then down: an id holds the second
in which its span began, and each line holds its parent's id beside its own, so that those lines are looked at
that hold one of the seconds in which the tree lived. They are read from the end, which meets parents before
their children; lines whose parent was not met yet wait. What came out may reach beyond the seconds that were
looked for, or too many lines may have waited: then there is another pass, until one finds nothing new.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Self

from spritemesh import jsontext
from spritemesh.tracing.reading.order import Order
from spritemesh.tracing.reading.reader import LineFiles, Region
from spritemesh.tracing.reading.records import Damage, Facts, Malformed, facts_of, seconds_of

# Of larger trees this much is kept.
MAX_SPANS = 50_000
_MAX_BYTES = 128 * 1024 * 1024
# Lines that wait for their parent; each takes some 300 bytes.
_MAX_WAITING = 100_000
_MAX_REMEMBERED = 100_000
_LONGEST_SECONDS = 15


class Span(NamedTuple):
    """One line of the tree. position: in the files."""

    position: int
    facts: Facts
    line: bytes


class Tree(NamedTuple):
    """A tree. root_id: of the span that it hangs from. is_root_missing: it has children in the files, but no
    line. left_out: spans beyond what is kept, at least."""

    asked: str
    root_id: str
    is_root_missing: bool
    spans: list[Span]
    left_out: int


def find_tree(files: LineFiles, trace_id: str, damage: Damage) -> Tree | None:
    """The tree with the span `trace_id`, which may be known from its children alone; None when nothing in the
    files names it.

    An id is looked for as it is usually spelled: ids of the known form have nothing that JSON would escape.
    damage: gets the malformed lines that were come across. Raises OSError.
    """
    return _Search(files, damage).tree(trace_id)


def find_below(files: LineFiles, roots: Sequence[Span], damage: Damage) -> tuple[list[Span], int]:
    """These spans and all that hangs from them, by position, and how many spans beyond what is kept: as they
    are read from the end, those that ended first.

    damage: as for find_tree. Raises OSError.
    """
    return _Search(files, damage).below(roots)


def second_of(trace_id: str) -> int | None:
    """The second in which a span began, as its id tells it; None when it has another form."""
    parts = trace_id.split("_")
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit()):
        return None
    if len(parts[1]) > _LONGEST_SECONDS or str(int(parts[1])) != parts[1]:
        return None
    return int(parts[1])


class Stretch(NamedTuple):
    """Seconds from `first` to `last`, and what every id that began in them has one of; ids of no others have.
    needles empty: every line has to be looked at."""

    first: int
    last: int
    needles: list[bytes]

    @classmethod
    def around(cls, first: int, last: int) -> Self:
        """The narrowest stretch that takes two needles at most: of a wide one the last digits are left
        out."""
        for digits in range(_LONGEST_SECONDS):
            unit = 10**digits
            low, high = first // unit, last // unit
            if digits and not low:
                break
            # Looking at the lines of ten seconds costs less than a second needle.
            if low == high or (high - low == 1 and (digits or first // 10 != last // 10)):
                needles = [b"_%d%s" % (number, b"" if digits else b"_") for number in range(low, high + 1)]
                return cls(low * unit, high * unit + unit - 1, needles)
        return cls(0, 10**_LONGEST_SECONDS, [])


class Count:
    """Counts spans by their ids: one that is met again counts once, up to a hundred thousand of them."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._more = 0

    @property
    def total(self) -> int:
        return len(self._seen) + self._more

    def add(self, trace_id: str) -> None:
        """One more."""
        if len(self._seen) < _MAX_REMEMBERED:
            self._seen.add(trace_id)
        elif trace_id not in self._seen:
            self._more += 1


class _Search:
    def __init__(self, files: LineFiles, damage: Damage) -> None:
        self._files = files
        self._damage = damage
        self._orders = [Order(files, region) for region in files.regions]

    def tree(self, asked: str) -> Tree | None:
        """As find_tree."""
        way = {asked}
        known: list[Span] = []
        current = asked
        after: int | None = None
        life: tuple[float, float] | None = None
        is_missing = False
        while True:
            found, is_named = self._line_of(current, after)
            if found is None:
                if current == asked and not is_named:
                    return None
                is_missing = True
                break
            known.append(found)
            after, life = found.position + len(found.line), _life(found.facts)
            parent = found.facts.parent_id
            # An id that is its own ancestor is damage; the tree begins where that was noticed.
            if not parent or parent in way or len(way) >= MAX_SPANS:
                break
            way.add(parent)
            current = parent
        descent = _Descent(self._files, self._damage, {current})
        descent.reach(way, None if is_missing else life)
        spans = self._descend(descent, known[::-1], second_of(current))
        return Tree(asked, current, is_missing, spans, descent.left_out)

    def below(self, roots: Sequence[Span]) -> tuple[list[Span], int]:
        """As find_below."""
        descent = _Descent(self._files, self._damage, {root.facts.trace_id for root in roots})
        for root in roots:
            descent.reach({root.facts.trace_id}, _life(root.facts))
        seconds = [second_of(root.facts.trace_id) for root in roots]
        known = [second for second in seconds if second is not None]
        begin = min(known) if len(known) == len(roots) else None
        return self._descend(descent, roots, begin), descent.left_out

    def _descend(self, descent: "_Descent", known: Sequence[Span], begin: int | None) -> list[Span]:
        """Gather all, from what ended in the second `begin` on; None: from the beginning.

        known: spans that were found already, parents first.
        """
        for span in known:
            descent.keep(span)
        regions = [order.since(begin, [span.position for span in known]) for order in self._orders]
        while not descent.is_complete:
            descent.go_through(regions)
        return sorted(descent.spans.values(), key=lambda span: span.position)

    def _line_of(self, trace_id: str, after: int | None) -> tuple[Span | None, bool]:
        """The line of a span, the first one from `after` on, where a child of it is; and, when there is none,
        whether any line calls it its parent."""
        has_child = False
        for span in self._lines_with(trace_id, after):
            if span.facts.trace_id == trace_id:
                return span, True
            has_child = has_child or span.facts.parent_id == trace_id
        return None, has_child

    def _lines_with(self, trace_id: str, after: int | None) -> Iterator[Span]:
        needle = [jsontext.encode(trace_id)]
        for region in self._likely_first(second_of(trace_id), after):
            for chunk in self._files.forward(*region):
                for position, line in [] if chunk.is_cut else chunk.holding(needle):
                    record = _read(position, line, self._damage)
                    if record is not None:
                        yield Span(position, record, line)

    def _likely_first(self, second: int | None, after: int | None) -> Iterator[Region]:
        """All of the files, where the line of a span that began in `second` should be first."""
        before, unlikely = [], []
        for order in self._orders:
            start, end = order.region
            begin = order.begin(second)
            if after is not None and start <= after <= end:
                yield Region(after, end)
                before.append(Region(min(begin, after), after))
                unlikely.append(Region(start, min(begin, after)))
            else:
                before.append(Region(begin, end))
                unlikely.append(Region(start, begin))
        yield from (region for region in chain(before, unlikely) if region.start < region.end)


class _Descent:
    """Gathers what hangs from roots."""

    def __init__(self, files: LineFiles, damage: Damage, root_ids: set[str]) -> None:
        self._files = files
        self._damage = damage
        self._root_ids = root_ids
        self.spans: dict[int, Span] = {}
        self._left = Count()
        self.is_complete = False
        self._bytes = 0
        self._members = set(root_ids)
        # The seconds to look for. None: some id tells none, so that every line is looked at.
        self._seconds: tuple[int, int] | None = None
        self._looks_at_all = False
        # Parent -> lines that wait for it: position and length.
        self._waiting: dict[str, list[tuple[int, int]]] = {}
        self._waiting_count = 0
        self._was_too_much = False

    @property
    def left_out(self) -> int:
        """Spans beyond what is kept."""
        return self._left.total

    def reach(self, trace_ids: set[str], life: tuple[float, float] | None) -> None:
        """Look for the seconds of these ids, and those between `life`."""
        for trace_id in trace_ids:
            self._extend(second_of(trace_id))
        if life is not None:
            self._extend(int(life[0]))
            self._extend(int(life[1]))

    def go_through(self, regions: list[Region]) -> None:
        """One pass over all lines in question."""
        stretch = self._stretch()
        count = len(self.spans)
        self._waiting, self._waiting_count, self._was_too_much = {}, 0, False
        self._left = Count()
        for region in reversed(regions):
            for chunk in self._files.backward(*region):
                if chunk.is_cut:
                    continue
                lines = chunk.holding(stretch.needles) if stretch.needles else list(chunk.placed())
                for position, line in reversed(lines):
                    self._look(position, line)
        self._waiting = {}
        now = self._stretch()
        is_covered = stretch.first <= now.first and now.last <= stretch.last
        has_more = self._was_too_much and len(self.spans) > count
        self.is_complete = self.left_out > 0 or (is_covered and not has_more)

    def _stretch(self) -> Stretch:
        if self._looks_at_all or self._seconds is None:
            return Stretch(0, 10**_LONGEST_SECONDS, [])
        return Stretch.around(*self._seconds)

    def _look(self, position: int, line: bytes) -> None:
        if position in self.spans:
            return
        record = _read(position, line, self._damage)
        if record is None:
            return
        if record.trace_id in self._root_ids or record.parent_id in self._members:
            self.keep(Span(position, record, line))
        elif record.parent_id:
            if self._waiting_count >= _MAX_WAITING:
                self._waiting, self._waiting_count, self._was_too_much = {}, 0, True
            self._waiting.setdefault(record.parent_id, []).append((position, len(line)))
            self._waiting_count += 1

    def keep(self, span: Span) -> None:
        """Take a span in, and those that waited for it."""
        found = [span]
        while found:
            span = found.pop()
            if len(self.spans) >= MAX_SPANS or self._bytes + len(span.line) > _MAX_BYTES:
                if span.facts.trace_id not in self._members:
                    self._left.add(span.facts.trace_id)
                continue
            self.spans[span.position] = span
            self._bytes += len(span.line)
            trace_id = span.facts.trace_id
            if trace_id in self._members and trace_id not in self._root_ids:
                continue
            self._members.add(trace_id)
            self._extend(second_of(trace_id))
            for position, length in self._waiting.pop(trace_id, ()):
                line = self._files.read(position, length)
                record = _read(position, line, self._damage)
                if record is not None:
                    found.append(Span(position, record, line))

    def _extend(self, second: int | None) -> None:
        if second is None:
            self._looks_at_all = True
        elif self._seconds is None:
            self._seconds = (second, second)
        else:
            self._seconds = (min(second, self._seconds[0]), max(second, self._seconds[1]))


def _read(position: int, line: bytes, damage: Damage) -> Facts | None:
    try:
        return facts_of(line)
    except Malformed as problem:
        damage.note(position, str(problem), line)
        return None


def _life(record: Facts) -> tuple[float, float] | None:
    """When a span began and ended, Unix seconds; None when its line does not tell."""
    began = seconds_of(record.timestamp)
    return None if began is None else (began, began + max(0.0, record.duration_ms or 0.0) / 1000)
