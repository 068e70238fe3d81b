"""The manager's clock: one that is set between two ticks of the supervisor tells nobody before the next one.

Then everything that holds times is told by how much, at one moment. Otherwise what was noted between the
setting and its discovery would be shifted although it was right, and lie an hour ahead.
"""

import time

# The machine's clock was set when it differs by so much from what the monotonic one says, seconds.
STEP_SECONDS = 1.0


class SteadyClock:
    """Call it for epoch seconds. They run as the monotonic clock does between two calls of `catch_up`."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def catch_up(self) -> float:
        """Be the machine's clock again. Returns by how much that was set since the last call, 0 for not."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        stepped = self._ahead - before
        return stepped if abs(stepped) > STEP_SECONDS else 0.0
