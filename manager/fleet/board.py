"""The fleet as it is now: one LoopView a loop, and who wants to hear of changes.

Nothing is queued for a slow reader: a subscription holds the ids that changed since it was last asked, so
its size is that of the fleet at most, and what it reads is always the newest. One event loop uses a board.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from superloop.ops.v1 import manager_pb2 as pb

_COUNTS = tuple(field.name for field in pb.SessionCounts.DESCRIPTOR.fields)


class BoardSubscription:
    """One reader's ear."""

    def __init__(self, known: set[str]) -> None:
        self._changed = known
        self._event = asyncio.Event()
        if known:
            self._event.set()

    def touch(self, loop_id: str) -> None:
        """Tell that a loop changed, came or left."""
        self._changed.add(loop_id)
        self._event.set()

    async def changed(self) -> set[str]:
        """Ids of the loops that changed since the last call; waits until there is one. All loops at first."""
        await self._event.wait()
        self._event.clear()
        changed, self._changed = self._changed, set()
        return changed


class Board:
    """The views of a fleet. A view that was put is not changed afterwards."""

    def __init__(self, fleet_id: str) -> None:
        self.fleet_id = fleet_id
        # What sessions counted that are no more: totals of the fleet never fall.
        self.departed = pb.SessionCounts()
        self._views: dict[str, pb.LoopView] = {}
        # Views are made when somebody looks, which is less often than a busy loop changes.
        self._makers: dict[str, Callable[[], pb.LoopView]] = {}
        self._outdated: set[str] = set()
        self._subscriptions: set[BoardSubscription] = set()

    def __len__(self) -> int:
        return len(self._views)

    def follow(self, loop_id: str, make: Callable[[], pb.LoopView]) -> None:
        """Show what `make` gives as the view of a loop, made anew after each `touch`."""
        self.put(make())
        self._makers[loop_id] = make

    def touch(self, loop_id: str) -> None:
        """A loop that is followed has changed."""
        if loop_id in self._makers:
            self._outdated.add(loop_id)
            self._tell(loop_id)

    def put(self, view: pb.LoopView) -> None:
        """Show `view` as that of its loop. Counts that fell are those of a new session."""
        before = self.view(view.loop_id)
        if before is not None and _fell(before.counts, view.counts):
            self._keep(before.counts)
        self._makers.pop(view.loop_id, None)
        self._outdated.discard(view.loop_id)
        self._views[view.loop_id] = view
        self._tell(view.loop_id)

    def remove(self, loop_id: str) -> None:
        """The loop left the fleet."""
        view = self.view(loop_id)
        self._makers.pop(loop_id, None)
        self._views.pop(loop_id, None)
        if view is not None:
            self._keep(view.counts)
            self._tell(loop_id)

    def view(self, loop_id: str) -> pb.LoopView | None:
        """The view of a loop; None when it is not in the fleet."""
        if loop_id in self._outdated:
            self._outdated.discard(loop_id)
            self._views[loop_id] = self._makers[loop_id]()
        return self._views.get(loop_id)

    def views(self) -> list[pb.LoopView]:
        """All views, in order of loop ids."""
        for loop_id in list(self._outdated):
            self.view(loop_id)
        return [self._views[loop_id] for loop_id in sorted(self._views)]

    @contextmanager
    def subscribe(self) -> Iterator[BoardSubscription]:
        """Hear of changes for the length of the block."""
        subscription = BoardSubscription(set(self._views))
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def _keep(self, counts: pb.SessionCounts) -> None:
        for field in _COUNTS:
            setattr(self.departed, field, getattr(self.departed, field) + getattr(counts, field))

    def _tell(self, loop_id: str) -> None:
        for subscription in self._subscriptions:
            subscription.touch(loop_id)


def _fell(before: pb.SessionCounts, now: pb.SessionCounts) -> bool:
    return any(getattr(now, field) < getattr(before, field) for field in _COUNTS)
