"""Whether a sprite runs twice: two agents alive under one sprite id (architecture 4, duplicate identity).

An agent tells its boot id, its process and when it started. A restart ends one start before the next begins;
where two starts were alive at the same time, there are two sprites. That shows even to a manager with a
single connection that is led from one to the other and has never held both.
"""

from typing import NamedTuple

# A start that has not been heard of for so long is gone: a dozen heartbeats.
GONE_SECONDS = 60.0
# What start times may be off: the kernel tells them by a boot time of whole seconds.
_MARGIN_SECONDS = 2.0


class Start(NamedTuple):
    """One start of an agent. process: its pid and start time as it tells them, so that a new boot id of the
    same process is known as the same start. started_at: on the manager's clock, epoch seconds."""

    boot_id: str
    process: tuple[int, float]
    started_at: float


class _Heard(NamedTuple):
    """superseded: another boot id of the same process has been heard since, as after a pause. One that is
    heard again all the same lives in a copy of the machine's memory."""

    start: Start
    at: float
    superseded: bool = False


class Clones:
    """The starts that live, by sprite id."""

    def __init__(self) -> None:
        self._heard: dict[str, dict[str, _Heard]] = {}

    def hear_again(self, sprite_id: str, boot_id: str, now: float) -> bool:
        """A heartbeat of a start that is known, and the only one: nearly all are. False: then `hear` it."""
        starts = self._heard.get(sprite_id)
        if starts is None or len(starts) != 1 or boot_id not in starts:
            return False
        starts[boot_id] = _Heard(starts[boot_id].start, now)
        return True

    def hear(self, sprite_id: str, start: Start, now: float) -> None:
        """A heartbeat of `start` came at `now`, epoch seconds."""
        starts = self._heard.setdefault(sprite_id, {})
        known = starts.get(start.boot_id)
        if known is not None:
            # A delay on the way, or a clock of its own that was set back, makes no start any later.
            start = start._replace(started_at=min(start.started_at, known.start.started_at))
        for boot_id, heard in list(starts.items()):
            if boot_id == start.boot_id:
                continue
            older = heard.start.started_at < start.started_at
            ended = older and heard.at < start.started_at + _MARGIN_SECONDS
            if ended or now - heard.at > GONE_SECONDS:
                del starts[boot_id]
            elif known is None and heard.start.process == start.process:
                starts[boot_id] = heard._replace(superseded=True)
        starts[start.boot_id] = _Heard(start, now)

    def end(self, sprite_id: str, boot_id: str) -> None:
        """That start said that it ends."""
        starts = self._heard.get(sprite_id, {})
        starts.pop(boot_id, None)
        if not starts:
            self._heard.pop(sprite_id, None)

    def shift(self, seconds: float) -> None:
        """The manager's own clock was set by so much: ages stay what they are."""
        for starts in self._heard.values():
            for boot_id, heard in starts.items():
                start = heard.start._replace(started_at=heard.start.started_at + seconds)
                starts[boot_id] = heard._replace(start=start, at=heard.at + seconds)

    def boot_ids(self, sprite_id: str, now: float) -> list[str]:
        """Boot ids that live under a sprite id at `now`, sorted; more than one: it is cloned."""
        starts = self._heard.get(sprite_id)
        if not starts:
            return []
        return sorted(
            boot_id
            for boot_id, heard in starts.items()
            if not heard.superseded and now - heard.at <= GONE_SECONDS
        )
