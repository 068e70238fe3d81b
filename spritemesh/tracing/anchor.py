"""Nodes of the chain that are no spans: a parent in another process, and a parent in another thread."""

import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import msgspec

from spritemesh.tracing.context import Node, enter, leave

if TYPE_CHECKING:
    from spritemesh.tracing.writing.console import Console


class Anchor(msgspec.Struct, eq=False):
    """What spans hang from that is no span here; a context manager for a block. Fields are as context.Node
    tells.

    span: the node in another thread that this stands for. entries: how often it was entered and not left.
    """

    trace_id: str = ""
    ops_trace_id: str = ""
    is_anchor: bool = True
    span: Node | None = None
    entries: int = 0
    previous: Node | None = None
    frame: FrameType | None = None
    place: object = None
    over: tuple[Node, ...] = ()
    has_left: bool = False

    def open(self, console: "Console") -> int:
        """As context.Node tells."""
        return 0 if self.span is None else self.span.open(console)

    def __enter__(self) -> None:
        self.entries += 1
        if self.entries > 1:
            return
        try:
            enter(self, sys._getframe(1))
        except BaseException:
            # Somebody interrupts.
            self.entries = 0
            leave(self)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.entries -= 1
        if self.entries == 0:
            leave(self)


def carried(node: Node | None) -> Node | None:
    """What another thread has for `node`, which may be closed, and whose generator may wait, before it is
    used there."""
    if node is None:
        return None
    return Anchor(node.trace_id, node.ops_trace_id, is_anchor=node.is_anchor, span=node)
