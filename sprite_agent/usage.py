"""How much of its limits a server uses now, for metrics."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sprite_agent.limits import BOUNDS, Limits, value_of


class Usage(NamedTuple):
    """limits: of the server. Functions tell what is used now: streams in all, calls of the connection with
    the most, event or trace streams of the loop with the most, connections over HTTP."""

    limits: Limits
    streams: Callable[[], int]
    connection_calls: Callable[[], int]
    subscribers: Callable[[], int] = int
    http_connections: Callable[[], int] = int

    def moment(self) -> "UsageMoment":
        """What is used at one moment. Of the event loop."""
        return UsageMoment(
            self.limits,
            self.streams(),
            self.connection_calls(),
            self.subscribers(),
            self.http_connections(),
        )


class UsageMoment(NamedTuple):
    """As Usage, in numbers."""

    limits: Limits
    streams: int
    connection_calls: int
    subscribers: int
    http_connections: int

    def named_limits(self) -> Iterator[tuple[str, float]]:
        """Limits by their names in `--limit`."""
        for bound in BOUNDS:
            yield bound.name, value_of(self.limits, bound)
