"""The current span: the one that new spans hang from.

Threads, tasks and contexts each have their own, in one context variable. What is open forms a chain, from the
newest on by `previous`; who leaves takes itself out of it. Tokens of context variables would not do: they are
of no use in another context, where a generator may well be closed.

Generators run in the context of whoever asks them for a value, so that a span that is open in one would be
the current one of its consumer, too. A node that a generator opened therefore knows the generator's frame:
while the generator waits, nothing hangs from it; when it goes on, everything does, whatever its consumer has
opened meanwhile.
"""

import sys
from _thread import get_ident  # what `threading` has it from, which is slow to import
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spritemesh.tracing.writing.console import Console

# Flags of code, as `inspect` names them, which takes long to import.
CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200
_GENERATORS = CO_GENERATOR | CO_ASYNC_GENERATOR
# Where generators are that only hand on what another one does.
_DECORATING = "spritemesh.tracing.decorating"


class Node(Protocol):
    """What the chain is made of: a span that is open, or an anchor.

    trace_id: what hangs from it has this parent, "" for none. is_anchor: whether it is no span of this
    process, so that what hangs from it is a root here, and carries its ops_trace_id. previous: what was
    entered before it. frame: of the generator that opened it, else None. place: where that was (`here`).
    over: open nodes of generators that waited when it was entered, the newest first. has_left: whether it is
    closed, but could not be taken out of every chain.
    """

    trace_id: str
    ops_trace_id: str
    is_anchor: bool
    previous: "Node | None"
    frame: FrameType | None
    place: object
    over: tuple["Node", ...]
    has_left: bool

    def open(self, console: "Console") -> int:
        """Have the console show its beginning, as it is about to get a child; the depth of that child."""


CURRENT: ContextVar[Node | None] = ContextVar("spritemesh_trace", default=None)


def innermost() -> Node | None:
    """The node that a new span would hang from."""
    node = CURRENT.get()
    if node is None or (node.frame is None and not node.over and not node.has_left):
        return node
    return _reached(node)[0]


def enter(node: Node, frame: FrameType) -> Node | None:
    """Make `node` the current one, and return the one that it hangs from. frame: of whoever enters."""
    current = CURRENT.get()
    # They left in another context; who hangs from them would keep all that ever did.
    while current is not None and current.has_left:
        current = current.previous
    parent = current
    if current is not None and (current.frame is not None or current.over):
        parent, node.over = _reached(current)
    if frame.f_code.co_flags & _GENERATORS and not _is_context_manager(frame):
        node.frame = frame
        node.place = here()
    node.previous = current
    node.has_left = False
    CURRENT.set(node)
    return parent


def leave(node: Node) -> None:
    """Take `node` out. Children that outlive it, in other contexts, go on hanging from it."""
    node.frame = None
    node.over = ()
    current = CURRENT.get()
    if current is node:
        previous = node.previous
        while previous is not None and previous.has_left:
            previous = previous.previous
        CURRENT.set(previous)
        # Tasks that start each other would keep all that came before them.
        node.previous = None
        return
    node.has_left = True
    above = current
    while above is not None:
        if above.previous is node:
            above.previous = node.previous
            return
        above = above.previous


def here() -> object:
    """Which thread and task this is. A copy of a context takes its current node to another place, and there
    it stays what to hang from, whatever a generator does here."""
    asyncio = sys.modules.get("asyncio")
    task = None
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except (RuntimeError, AttributeError):
            # No loop runs here; or asyncio is being imported.
            task = None
    return get_ident(), id(task)


def _reached(node: Node | None) -> tuple[Node | None, tuple[Node, ...]]:
    """The innermost node at work, seen from the newest of a chain, and open ones of generators that wait."""
    place = here()
    waiting: list[Node] = []
    while node is not None:
        if node.has_left:
            node = node.previous
            continue
        if node.place == place and _waits(node):
            waiting.append(node)
            node = node.previous
            continue
        over = [other for other in node.over if other.frame is not None and other.place == place]
        running = [other for other in over if not _waits(other)]
        if running:
            # Newest first, so that of one generator the innermost node counts.
            node = _innermost([node, *running])
        return node, (*waiting, *(other for other in over if _waits(other)))
    return None, tuple(waiting)


def _waits(node: Node) -> bool:
    """Whether it is of a generator that nobody is asking for a value now."""
    return node.frame is not None and node.frame.f_back is None


def _innermost(nodes: list[Node]) -> Node:
    """Of a node and of those of generators that run again since it was entered, the one whose frame is the
    innermost; the first one, if it is of no generator, is the outermost."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for node in nodes:
            if node.frame is frame:
                return node
        frame = frame.f_back
    return nodes[0]


def _is_context_manager(frame: FrameType) -> bool:
    """Whether this generator is the body of a context manager: what its `with` block does belongs to it."""
    caller = frame.f_back
    while caller is not None and caller.f_globals.get("__name__") == _DECORATING:
        caller = caller.f_back
    return caller is not None and caller.f_globals.get("__name__") == "contextlib"
