"""How sessions try again: in turn, after a while, and under which name."""

import asyncio
import random
import re
from typing import Self

from manager.transport.backoff import jittered
from spritemesh.errors import OpsError
from spritemesh.reasons import Fault

# Wrong tokens and certificates do not mend themselves, and knocking on is rude.
_CREDENTIALS_BACKOFF_SECONDS = 60.0
# An agent may ask for more patience, but not for more than this.
_LONGEST_WAIT_SECONDS = 300.0


class Queue:
    """A place among those who connect at the same time; left early, or at the end of the block."""

    def __init__(self, gate: asyncio.Semaphore) -> None:
        self._gate = gate
        self._holds = False

    async def __aenter__(self) -> Self:
        await self._gate.acquire()
        self._holds = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in; a second call changes nothing."""
        if self._holds:
            self._holds = False
            self._gate.release()


def delay(error: OpsError, tries: int, base: float) -> float:
    """How long to wait before the next try: exponential backoff with full jitter."""
    if (error.row.fault is Fault.CREDENTIALS or error.reason == "tls_failed") and error.retry_after is None:
        return random.uniform(0.5, 1.0) * _CREDENTIALS_BACKOFF_SECONDS  # noqa: S311 - spreads reconnects, guards nothing
    wanted = min(error.retry_after or 0, _LONGEST_WAIT_SECONDS)
    return max(jittered(max(base, 0.1), tries, least=0.05), wanted)


def trace_word(loop_id: str) -> str:
    """A loop id in a trace id (contract K, end)."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", loop_id)
