"""How often a stream that follows says "you have everything up to here"."""

import time

# New lines bring a bookmark no more often than this.
NEWS_SECONDS = 1.0


class Pace:
    """Of one stream's bookmarks. idle_seconds: between two while nothing happens."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._marked_at = 0.0
        # Whether anything was handed out since the last bookmark. A reader sets it for each batch.
        self.has_news = False

    def mark(self) -> None:
        """A bookmark is made."""
        self._marked_at = time.monotonic()
        self.has_news = False

    def is_idle(self) -> bool:
        """Whether one is due though nothing happened."""
        return time.monotonic() - self._marked_at >= self._idle_seconds

    def seconds_left(self) -> float:
        """How long until the next one, if nothing happens before."""
        seconds = NEWS_SECONDS if self.has_news else self._idle_seconds
        return max(0.0, self._marked_at + seconds - time.monotonic())
