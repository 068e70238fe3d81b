"""Alerts of a fleet leave in threads of their own, so that a sink that hangs delays no session."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from manager.alerts.dispatch import after_pass
from manager.alerts.progress import Order
from manager.fleet.session import Session
from manager.store import LoopFiles

_THREADS = 4
# How often a loop's alerts that wait for another try are looked at, seconds.
_RETRY_SECONDS = 60.0


class AlertDesk:
    """Dispatches the alerts of sessions; one pass a loop at a time. catalog: path of the catalog of sinks."""

    def __init__(self, catalog: str) -> None:
        self._catalog = catalog
        self._pool = ThreadPoolExecutor(_THREADS, "alert")
        self._running: set[str] = set()
        self._again: dict[str, Session] = {}
        self._looked: dict[str, float] = {}

    def escalated(self, session: Session) -> None:
        """Escalations of the loop are on disk."""
        if session.loop_id in self._running:
            self._again[session.loop_id] = session
            return
        self._running.add(session.loop_id)
        settings, paths = session.loop.settings, session.store.store.paths
        order = Order(settings.repo_path, settings.loop_id, settings.trace_id or "", self._catalog)
        done = asyncio.get_running_loop().run_in_executor(self._pool, after_pass, paths, order)
        done.add_done_callback(lambda _: self._done(session))

    def tick(self, session: Session) -> None:
        """Time has passed: alerts of the loop may be due again."""
        now = time.monotonic()
        if now - self._looked.get(session.loop_id, 0.0) >= _RETRY_SECONDS:
            self._looked[session.loop_id] = now
            if has_retries(session.store.store.paths):
                self.escalated(session)

    def close(self) -> None:
        """What has not begun is left to the next manager: it stands in the files."""
        self._again.clear()
        self._pool.shutdown(cancel_futures=True)

    def _done(self, session: Session) -> None:
        self._running.discard(session.loop_id)
        again = self._again.pop(session.loop_id, None)
        if again is not None:
            self.escalated(again)


def has_retries(paths: LoopFiles) -> bool:
    """Whether alerts of a loop wait for another try."""
    return os.path.lexists(paths.alert_retries)
