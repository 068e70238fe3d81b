"""How long to wait for somebody who is away: exponential backoff with full jitter, without end."""

import random
import time
from typing import TYPE_CHECKING

from spritemesh.errors import OpsError

if TYPE_CHECKING:
    from manager.transport.base import Retry

LONGEST_SECONDS = 30.0


def jittered(base_seconds: float, tries: int, *, least: float = 0.1) -> float:
    """Seconds before the next try. tries: those that failed. least: seconds, at most 0.1."""
    ceiling = min(LONGEST_SECONDS, base_seconds * 2.0 ** min(tries - 1, 10))
    return random.uniform(least, max(0.1, ceiling))  # noqa: S311 - spreads reconnects, guards nothing


def wait_for_return(retry: "Retry", error: OpsError, tries: int) -> None:
    """Wait before a follower's next try, as long as `error` asks for at least, and tell of it."""
    seconds = max(jittered(retry.backoff_seconds, tries), error.retry_after or 0)
    if retry.told is not None:
        retry.told(error, seconds)
    time.sleep(seconds)
