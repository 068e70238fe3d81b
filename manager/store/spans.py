"""The spans of a trace, looked for in the stored traces of loops and in the trace files of this machine."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from manager.core.trace_spans import MAX_SPANS, Span, Spans, span_of
from manager.store.paths import loop_files
from sprite_agent.runtime.layout import trace_files
from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.tracing.reader import LineFiles, opened
from spritemesh.tracing.records import Damage, Malformed, document, facts_of
from spritemesh.tracing.tree import Span as Line
from spritemesh.tracing.tree import find_below, find_tree
from spritemesh.values import get


def spans_under(repo: str, loop_ids: Iterable[str], ops_trace_id: str) -> Spans:
    """The spans that name an ops trace id, and all below them."""
    paths, damage = _paths(repo, loop_ids), Damage()
    with suppress(OSError, OpsError), opened(paths) as files:
        roots, more = _roots(files, ops_trace_id, damage)
        if roots:
            lines, left_out = find_below(files, roots, damage)
            return _spans(repo, files, lines, paths, left_out + more, damage)
    return Spans(damaged=damage.count)


def spans_around(repo: str, loop_ids: Iterable[str], span_id: str) -> tuple[Spans, str]:
    """All of the tree that a span belongs to, and the id of its root."""
    paths, damage = _paths(repo, loop_ids), Damage()
    with suppress(OSError, OpsError), opened(paths) as files:
        tree = find_tree(files, span_id, damage)
        if tree is not None:
            return _spans(repo, files, tree.spans, paths, tree.left_out, damage), tree.root_id
    return Spans(damaged=damage.count), ""


def _paths(repo: str, loop_ids: Iterable[str]) -> Mapping[str, str]:
    """Files that can be read, with the loop that each is of; "" for those of several loops."""
    loops = sorted(loop_ids)
    found: dict[str, str] = {}
    for loop_id in loops:
        with suppress(OpsError):
            found[loop_files(repo, loop_id).runtime_traces] = loop_id
    for name in trace_files(repo):
        found[os.path.join(repo, name)] = loops[0] if len(loops) == 1 else ""
    for loop_id in loops:
        with suppress(OpsError):
            for name in trace_files(repo, loop_id):
                found.setdefault(os.path.join(repo, name), loop_id)
    return {path: loop_id for path, loop_id in found.items() if _is_readable(path)}


def _is_readable(path: str) -> bool:
    try:
        with opened([path]):
            return True
    except (OpsError, OSError):
        return False


def _roots(files: LineFiles, ops_trace_id: str, damage: Damage) -> tuple[list[Line], int]:
    """The lines whose metadata names the id, and how many there are beyond what is shown."""
    needle = [jsontext.encode(ops_trace_id)]
    roots: list[Line] = []
    more = 0
    for chunk in files.forward():
        for position, line in [] if chunk.is_cut else chunk.holding(needle):
            try:
                if get(document(line), "metadata", "ops_trace_id") != ops_trace_id:
                    continue
                facts = facts_of(line)
            except Malformed as problem:
                damage.note(position, str(problem), line)
                continue
            if len(roots) < MAX_SPANS:
                roots.append(Line(position, facts, line))
            else:
                more += 1
    return roots, more


def _spans(
    repo: str,
    files: LineFiles,
    lines: Iterable[Line],
    paths: Mapping[str, str],
    left_out: int,
    damage: Damage,
) -> Spans:
    # Each region is one of the paths, with the old files that it moved aside into.
    regions = list(zip(files.regions, paths.items(), strict=True))
    found: list[Span] = []
    for line in lines:
        path, loop_id = next(place for region, place in regions if region.start <= line.position < region.end)
        try:
            span = span_of(document(line.line), loop_id=loop_id, file=os.path.relpath(path, repo))
        except Malformed as problem:
            damage.note(line.position, str(problem), line.line)
            continue
        if span is not None:
            found.append(span)
    return Spans(found, left_out, damage.count)
