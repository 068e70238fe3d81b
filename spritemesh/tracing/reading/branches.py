"""The spans of a tree in the order in which a tree is drawn."""

from collections.abc import Iterator
from typing import NamedTuple

from spritemesh.tracing.reading.records import seconds_of
from spritemesh.tracing.reading.tree import Span, Tree


class Branch(NamedTuple):
    """A span and where it hangs. depth: of spans above it. span None: it has no line; children tell of it."""

    depth: int
    trace_id: str
    span: Span | None


def branches(tree: Tree) -> Iterator[Branch]:
    """Every span of a tree behind its parent, children in the order in which they began."""
    children: dict[str, list[Span]] = {}
    roots = []
    for span in sorted(tree.spans, key=_began):
        if span.facts.trace_id == tree.root_id:
            roots.append(span)
        elif span.facts.parent_id:
            children.setdefault(span.facts.parent_id, []).append(span)
    left = [Branch(0, tree.root_id, span) for span in reversed(roots)] or [Branch(0, tree.root_id, None)]
    while left:
        branch = left.pop()
        yield branch
        # Taken out: of two lines with one id, the first one has all that hangs from it.
        below = children.pop(branch.trace_id, [])
        left.extend(Branch(branch.depth + 1, span.facts.trace_id, span) for span in reversed(below))


def _began(span: Span) -> tuple[float, int]:
    return (seconds_of(span.facts.timestamp) or 0.0, span.position)
