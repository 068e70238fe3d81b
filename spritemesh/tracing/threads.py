"""Threads and pools that go on under the span that was the current one where they were asked to.

A new thread has a context of its own, in which there is none. While tracing is on, and not before,
`Thread.start` and `submit` of both pools of `concurrent.futures` are ours: they say in the new thread, or in
the other process, what the parent is. The worker of a pool gets it for each task, "none" included, so that it
does not keep the one that happened to start it.
"""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from spritemesh.tracing.anchor import carried
from spritemesh.tracing.context import CURRENT, Node, innermost

if TYPE_CHECKING:
    from threading import Thread

# By their modules, which are imported when the first of them is wanted.
_POOLS = {
    "concurrent.futures.thread": "ThreadPoolExecutor",
    "concurrent.futures.process": "ProcessPoolExecutor",
}
# What was there before ours, by the name of its owner. It stays when tracing ends: a thread may be in ours.
_originals: dict[str, Callable[..., Any]] = {}
# Recorders that are in use: as long as there is one, threads carry.
_users = 0
# Owners that have ours, or what somebody else has put around it.
_changed: set[str] = set()


def begin() -> None:
    """Have threads carry the current span, until `end` was called as often as this."""
    global _users  # noqa: PLW0603 - what is changed is so for the process
    import threading

    _users += 1

    if "Thread" not in _changed:
        _changed.add("Thread")
        _originals["Thread"] = threading.Thread.start
        threading.Thread.start = _start  # type: ignore[method-assign, assignment]
    _begin_pools()


def end() -> None:
    """Put back what was there, unless somebody else has replaced it meanwhile, or it is still wanted."""
    global _users  # noqa: PLW0603 - as above
    _users -= 1
    if _users:
        return
    threads = sys.modules.get("threading")
    if threads is not None and threads.Thread.start is _start:
        threads.Thread.start = _originals["Thread"]
        _changed.discard("Thread")
    for module, name in _POOLS.items():
        pool = getattr(sys.modules.get(module), name, None)
        if pool is not None and pool.submit is _SUBMITS[name]:
            pool.submit = _originals[name]
            _changed.discard(name)


def _begin_pools() -> None:
    for module, name in _POOLS.items():
        # It is not whole yet while it is being imported.
        pool = getattr(sys.modules.get(module), name, None)
        if pool is not None and name not in _changed:
            _changed.add(name)
            _originals[name] = pool.submit
            pool.submit = _SUBMITS[name]


def _start(thread: "Thread") -> None:
    # Pools are imported late, and their first task starts a thread or forks: which serves that task rightly.
    _begin_pools()
    node = _carried()
    if node is not None:
        run = thread.run

        def carrying() -> None:
            thread.__dict__.pop("run", None)
            CURRENT.set(node)
            run()

        thread.run = carrying  # type: ignore[method-assign]
    try:
        _originals["Thread"](thread)
    except BaseException:
        thread.__dict__.pop("run", None)
        raise


def _submit_to_thread(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return _originals["ThreadPoolExecutor"](pool, _task, _carried(), function, *args, **kwargs)


def _submit_to_process(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    node = _carried()
    ids = None if node is None else (node.trace_id, node.ops_trace_id)
    return _originals["ProcessPoolExecutor"](pool, _remote_task, ids, function, *args, **kwargs)


_SUBMITS = {"ThreadPoolExecutor": _submit_to_thread, "ProcessPoolExecutor": _submit_to_process}


def _carried() -> Node | None:
    """What stands for the current span in another thread."""
    try:
        return carried(innermost())
    except Exception:
        # The program is at the end of its stack, which must not keep a thread from being started.
        return None


def _task(node: Node | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    CURRENT.set(node)
    try:
        return function(*args, **kwargs)
    finally:
        CURRENT.set(None)


def _remote_task(
    ids: tuple[str, str] | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """In a worker process, which was forked, or imports this. ids: as `Tracer.adopted` takes them."""
    from spritemesh.tracing import tracer

    # Forked in the middle of somebody's span.
    CURRENT.set(None)
    with tracer.adopted(*ids) if ids else nullcontext():
        return function(*args, **kwargs)
