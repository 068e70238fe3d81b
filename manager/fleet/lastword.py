"""The last warning of the log, for a picture in whose place the log cannot be shown."""

import logging
import time

# How long it is worth a line.
_NEWS_SECONDS = 60.0


class LastWord(logging.Handler):
    """Keeps the last record of level WARNING or higher; call it for its text, "" when it is no news."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told_at = 0.0
        self._text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._text, self._told_at = record.getMessage(), time.monotonic()

    def __call__(self) -> str:
        return self._text if time.monotonic() - self._told_at < _NEWS_SECONDS else ""
