"""How often somebody may do something: a token bucket for each name, of which there are only so many."""

import socket
import time
from collections import OrderedDict
from collections.abc import Callable

from spritemesh.errors import OpsError

# Names that are remembered. Whoever comes under more of them only makes us forget those longest silent.
MAX_NAMES = 10_000
_MINUTE = 60.0

# Of an IPv6 address: what a host is given at the least, and may choose addresses from (RFC 6177).
_NETWORK_BYTES = 8
_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


def network_of(host: str) -> str:
    """What a host is counted by that may have many addresses: of IPv6 its /64, else the host itself."""
    if ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host
    if packed.startswith(_MAPPED_PREFIX):
        return socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED_PREFIX) :])
    return socket.inet_ntop(socket.AF_INET6, packed[:_NETWORK_BYTES].ljust(16, b"\0")) + "/64"


class Buckets:
    """So many a minute for each name, all of them at once if need be. clock: monotonic seconds."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._rate = per_minute / _MINUTE
        self._clock = clock
        # Of each name, what was left and when. A name that is not here has all.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_next(self, name: str) -> float:
        """How long until the name may take one; 0: now."""
        return max(0.0, (1.0 - self._available(name)) / self._rate)

    def take(self, name: str) -> bool:
        """Take one; whether there was one."""
        left = self._available(name)
        if left < 1.0:
            return False
        self._left[name] = (left - 1.0, self._clock())
        self._left.move_to_end(name)
        if len(self._left) > MAX_NAMES:
            self._left.popitem(last=False)
        return True

    def _available(self, name: str) -> float:
        known = self._left.get(name)
        if known is None:
            return self._most
        left, then = known
        return min(self._most, left + (self._clock() - then) * self._rate)


class Rates:
    """Control requests of each identity."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._buckets = Buckets(per_minute, clock)

    def take(self, identity: str) -> None:
        """Count a request. Raises OpsError `control_rate_limited`; nothing was run then."""
        if not self._buckets.take(identity):
            raise OpsError(
                "control_rate_limited",
                f"more than {self._per_minute} control requests in a minute; nothing was run",
                retry_after=self._buckets.seconds_to_next(identity),
            )


class Failures:
    """Failed authentications of each address. Once there were too many, no credentials are looked at."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = Buckets(per_minute, clock)

    def check(self, origin: str) -> None:
        """Raises OpsError `too_many_failures` when the address failed too often."""
        wait = self._buckets.seconds_to_next(origin)
        if wait:
            raise OpsError(
                "too_many_failures",
                "too many calls from this address failed to authenticate",
                retry_after=wait,
            )

    def note(self, origin: str) -> None:
        """Count a failure."""
        self._buckets.take(origin)
