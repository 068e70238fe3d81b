"""The spans of a trace, looked for in the stored traces of loops and in the trace files of this machine.

Every loop has stored what was in the files of its whole sprite, so that a span may be found with several
loops: it may be of any of them then.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from manager.core.trace_spans import MAX_SPANS, Span, Spans, below, span_of
from manager.store.paths import loop_files
from sprite_agent.runtime.layout import trace_files
from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.tracing.reading.reader import LineFiles, opened
from spritemesh.tracing.reading.records import Damage, Malformed, document, facts_of
from spritemesh.tracing.reading.tree import Count, find_below, find_tree
from spritemesh.tracing.reading.tree import Span as Line
from spritemesh.values import get

# Loops whose files are open at a time: with the old ones, about ten each.
_GROUP = 16
# Of all loops together so many are kept to choose from.
_MAX_FOUND = 50_000


def spans_under(repo: str, loop_ids: Iterable[str], ops_trace_id: str) -> Spans:
    """The spans that name an ops trace id, and all below them."""
    gathered = _Gathered(repo)
    for paths in gathered.groups(loop_ids):
        with gathered.opened(paths) as files:
            roots, more = _roots(files, ops_trace_id, gathered.damage)
            if roots:
                lines, left_out = find_below(files, roots, gathered.damage)
                gathered.add(files, lines, paths, left_out + more)
    return gathered.below(ops_trace_id)


def spans_around(repo: str, loop_ids: Iterable[str], span_id: str) -> tuple[Spans, str]:
    """All of the tree that a span belongs to, and the id of its root."""
    gathered = _Gathered(repo)
    root_id = ""
    for paths in gathered.groups(loop_ids):
        with gathered.opened(paths) as files:
            tree = find_tree(files, span_id, gathered.damage)
            if tree is not None:
                root_id = root_id if root_id and tree.is_root_missing else tree.root_id
                gathered.add(files, tree.spans, paths, tree.left_out)
    return gathered.below(root_id), root_id


class _Gathered:
    """What was found of a trace, in files that are open a few at a time."""

    def __init__(self, repo: str) -> None:
        self.damage = Damage()  # of the group that is open: it knows lines by their positions
        self._damaged = 0
        self._repo = repo
        self._found: dict[str, Span] = {}
        self._left = Count()
        self._left_out = 0
        self._problem: OpsError | None = None

    def groups(self, loop_ids: Iterable[str]) -> Iterator[Mapping[str, str]]:
        """Files that can be read, with the loop that each is of; "" for those of several loops. Those of the
        whole repository are in each group: what began there may go on in a loop's file."""
        loops = sorted(loop_ids)
        shared = loops[0] if len(loops) == 1 else ""
        for start in range(0, max(len(loops), 1), _GROUP):
            self._damaged += self.damage.count
            self.damage = Damage()
            found: dict[str, str] = {}
            some = loops[start : start + _GROUP]
            for loop_id in some:
                with suppress(OpsError):
                    found[loop_files(self._repo, loop_id).runtime_traces] = loop_id
            for name in trace_files(self._repo):
                found[os.path.join(self._repo, name)] = shared
            for loop_id in some:
                with suppress(OpsError):
                    for name in trace_files(self._repo, loop_id):
                        found.setdefault(os.path.join(self._repo, name), loop_id)
            yield {path: loop_id for path, loop_id in found.items() if self._is_readable(path)}

    @contextmanager
    def opened(self, paths: Iterable[str]) -> Iterator[LineFiles]:
        """The files of a group; what keeps them from being read ends the block, and is told at the end."""
        try:
            with opened(paths, may_lack=True) as files:
                yield files
        except (OSError, OpsError) as error:
            self._note(error)

    def add(self, files: LineFiles, lines: Iterable[Line], paths: Mapping[str, str], left_out: int) -> None:
        """Lines that were found in a group, and how many more spans there are."""
        self._left_out += left_out
        # Each region is one of the paths, with the old files that it moved aside into.
        regions = list(zip(files.regions, paths.items(), strict=True))
        for line in lines:
            path, loop_id = next(
                place for region, place in regions if region.start <= line.position < region.end
            )
            try:
                file = os.path.relpath(path, self._repo)
                span = span_of(document(line.line), loop_id=loop_id, file=file)
            except Malformed as problem:
                self.damage.note(line.position, str(problem), line.line)
                continue
            if span is None:
                continue
            known = self._found.get(span.trace_id)
            if known is None and len(self._found) >= _MAX_FOUND:
                self._left.add(span.trace_id)
            elif known is None:
                self._found[span.trace_id] = span
            elif known.loop_id != loop_id:
                self._found[span.trace_id] = known._replace(loop_id="")

    def below(self, trace_id: str) -> Spans:
        """What there is to show of it."""
        shown, more = below(self._found.values(), trace_id)
        left_out = more + self._left.total + self._left_out
        return Spans(shown, left_out, self._damaged + self.damage.count, self._problem)

    def _is_readable(self, path: str) -> bool:
        try:
            with opened([path]):
                return True
        except (OpsError, OSError) as error:
            if not isinstance(error, OpsError) or error.reason != "trace_file_not_found":
                self._note(error)
            return False

    def _note(self, error: OpsError | OSError) -> None:
        if self._problem is not None:
            return
        if isinstance(error, OpsError):
            self._problem = OpsError(error.reason, error.message)  # no flag of this command
        else:
            self._problem = OpsError("document_invalid", f"trace files cannot be read: {error.strerror}")


def _roots(files: LineFiles, ops_trace_id: str, damage: Damage) -> tuple[Sequence[Line], int]:
    """The first line of each span whose metadata names the id, and how many spans there are beyond what is
    shown."""
    needle = [jsontext.encode(ops_trace_id)]
    roots: dict[str, Line] = {}
    more = Count()
    for chunk in files.forward():
        for position, line in [] if chunk.is_cut else chunk.holding(needle):
            try:
                if get(document(line), "metadata", "ops_trace_id") != ops_trace_id:
                    continue
                facts = facts_of(line)
            except Malformed as problem:
                damage.note(position, str(problem), line)
                continue
            if facts.trace_id in roots or len(roots) < MAX_SPANS:
                roots.setdefault(facts.trace_id, Line(position, facts, line))
            else:
                more.add(facts.trace_id)
    return list(roots.values()), more.total
