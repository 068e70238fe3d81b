"""Routing, sending and recording: what `dispatch` does once there is something to do."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from manager.alerts.catalog import read_alert_catalog
from manager.alerts.progress import Order, Progress
from manager.alerts.queue import RetryQueue
from manager.alerts.sending import Sender
from manager.core.alert_catalog import SEVERITIES, Catalog, Resolution, Sink, resolve
from manager.core.alert_payloads import Alert
from manager.core.alert_retries import MAX_ENTRIES, MAX_RETRIES_PER_PASS, MAX_TRIES, Entry, is_due
from manager.core.alert_rows import (
    Escalation,
    attempted_row,
    exhausted_row,
    invalid_row,
    read_escalation,
    sink_element,
    skipped_row,
    uncategorised_row,
    unrouted_row,
)
from manager.store import LoopFiles, LoopStore
from spritemesh import jsontext, traceindex
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import get

# Lines that need no request are recorded together; so many at most are done again after a crash.
_ROWS_AT_ONCE = 256


class Work:
    """One pass: `retry`, then `take` for each line, then `save`; `close` it in any case."""

    def __init__(
        self,
        paths: LoopFiles,
        order: Order,
        progress: Progress,
        *,
        environment: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        """Raises OpsError `document_invalid` for a retry queue that cannot be used."""
        self._paths = paths
        self._order = order
        self._progress = progress
        self._environment = environment
        self._clock = clock
        self._queue = RetryQueue(paths.alert_retries, order.loop_id)
        self._sender = Sender(environment, clock)
        self._catalog: Catalog | OpsError | None = None
        self._rows: list[dict[str, JSON]] = []
        self._steps: list[traceindex.Entry] = []
        # Lines whose entries are of no use once the state says that they are passed.
        self._done: list[int] = []

    def close(self) -> None:
        self._sender.close()

    # --- new lines ----------------------------------------------------------------------------------

    def take(self, number: int, line: bytes) -> None:
        """Do what a line asks for. number: from 1. Raises OpsError `state_unwritable`."""
        progress = self._progress
        progress.offset = number
        if not line.strip():
            progress.counts = progress.counts.skip()
            return
        try:
            document = jsontext.parse(line, max_depth=jsontext.MAX_DOCUMENT_DEPTH)
        except jsontext.JSONError:
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            self._fail("invalid_escalation_json", invalid_row(progress.head(), text))
            return
        escalation = self._read(document)
        if not escalation.category:
            self._fail("missing_escalation_category", uncategorised_row(progress.head(), document))
            return
        # What a crash left of this line.
        known = self._queue.get(number)
        entry = known if known and known.escalation == document else Entry(number, document)
        self._take(entry, escalation)
        if len(self._rows) >= _ROWS_AT_ONCE:
            self.save()

    def _take(self, entry: Entry, escalation: Escalation) -> None:
        progress = self._progress
        resolution = self._resolve(escalation)
        if isinstance(resolution, OpsError):
            self._fail(
                "route_resolution_failed", unrouted_row(progress.head(), escalation, resolution.message)
            )
            # The catalog may be mended; an escalation that says nonsense stays so.
            if resolution.reason == "invalid_request":
                self._done.append(entry.line)
            else:
                self._queue.put(entry._replace(routed=False).failed({}, self._clock()))
            return
        skipped = _reason_to_skip(resolution, resolution.sinks)
        if skipped:
            progress.counts = progress.counts.skip()
            self._skip(escalation, skipped, resolution)
            self._done.append(entry.line)
            return
        began = self._clock()
        entry, sinks = self._tell(entry, escalation, resolution.sinks, resolution.severity)
        progress.counts = progress.counts.attempt(sinks)
        row = attempted_row(progress.head(), escalation, resolution.severity, resolution.document, sinks)
        self._record(row, escalation, began)
        if entry.waiting:
            self._queue.put(entry.failed(entry.waiting, self._clock()))
        else:
            self._done.append(entry.line)
        self.save()

    def _fail(self, reason: str, row: dict[str, JSON]) -> None:
        self._progress.counts = self._progress.counts.fail(reason)
        self._rows.append(row)

    # --- retries ------------------------------------------------------------------------------------

    def retry(self) -> None:
        """Try again what is due. Raises OpsError `state_unwritable`."""
        passed = [entry for entry in self._queue if entry.line <= self._progress.offset]
        for entry in passed:
            # All sinks took it, and a crash came before the entry was removed.
            if entry.settled:
                self._queue.remove(entry.line)
        now = self._clock()
        due = (entry for entry in passed if not entry.settled and is_due(entry, now))
        for entry in islice(due, MAX_RETRIES_PER_PASS):
            self._retry(entry, self._read(entry.escalation))
            self._tell_telemetry()
            self._save_queue()

    def _retry(self, entry: Entry, escalation: Escalation) -> None:
        head = self._progress.head()
        resolution = self._resolve(escalation)
        if isinstance(resolution, OpsError):
            self._rows.append(unrouted_row(head, escalation, resolution.message, retry=entry.tries))
            self._wait(entry, escalation, entry.waiting)
            return
        # The catalog of now decides: a sink that was switched off, or that nobody routes to, is not told.
        sinks = [sink for sink in resolution.sinks if sink.id in entry.waiting or not entry.routed]
        skipped = _reason_to_skip(resolution, sinks)
        if skipped:
            self._skip(escalation, skipped, resolution, retry=entry.tries)
            self._queue.remove(entry.line)
            return
        began = self._clock()
        tries = entry.tries
        told, elements = self._tell(entry, escalation, sinks, resolution.severity)
        row = attempted_row(
            self._progress.head(), escalation, resolution.severity, resolution.document, elements, retry=tries
        )
        self._record(row, escalation, began)
        if told.waiting:
            self._wait(told, escalation, told.waiting)
        else:
            self._queue.remove(entry.line)

    def _wait(self, entry: Entry, escalation: Escalation, waiting: dict[str, str]) -> None:
        """Try again later, or give up after the last try."""
        entry = entry.failed(waiting, self._clock())
        if not entry.exhausted:
            self._queue.put(entry)
            return
        self._give_up(entry, escalation, f"given up after {MAX_TRIES} tries")

    def _give_up(self, entry: Entry, escalation: Escalation, why: str) -> None:
        told = ", ".join(f"{name}: {reason}" for name, reason in entry.waiting.items())
        message = f"{why} ({told or 'no route'})"
        self._rows.append(exhausted_row(self._progress.head(), escalation, list(entry.waiting), message))
        self._queue.remove(entry.line)

    # --- one escalation -----------------------------------------------------------------------------

    def _read(self, document: JSON) -> Escalation:
        return read_escalation(document, loop_id=self._order.loop_id, trace_id=self._order.trace_id)

    def _resolve(self, escalation: Escalation) -> Resolution | OpsError:
        """Who is told, or why that is not known. The catalog is read once a pass."""
        if self._catalog is None:
            try:
                self._catalog = read_alert_catalog(self._order.catalog)
                self._sender.use(self._catalog)
            except OpsError as error:
                self._catalog = error
        if escalation.severity and escalation.severity not in SEVERITIES:
            # Said of the escalation even where the catalog is at fault, too: mending that would not help.
            return OpsError("invalid_request", f"the escalation's severity {escalation.severity!r} is none")
        if isinstance(self._catalog, OpsError):
            return self._catalog
        return resolve(self._catalog, escalation.category, escalation.severity, self._environment)

    def _tell(
        self, entry: Entry, escalation: Escalation, sinks: Sequence[Sink], severity: str
    ) -> tuple[Entry, list[JSON]]:
        """Tell those sinks that do not know yet. Returns the entry, with those that are left waiting, and an
        element for each of `sinks`."""
        alert = Alert(
            repo_path=self._order.repo_path,
            loop_id=escalation.loop_id,
            trace_id=escalation.trace_id,
            category=escalation.category,
            severity=severity,
            timestamp=escalation.timestamp,
            escalation=escalation.document,
        )
        taken = {get(element, "id"): element for element in entry.delivered}
        elements: list[JSON] = []
        waiting: dict[str, str] = {}
        asked = {sink.id: entry.waiting.get(sink.id, "") for sink in sinks if sink.id not in taken}
        entry = entry._replace(routed=True, waiting=asked)
        # If the queue cannot be written, nothing is sent: what took an alert could not be remembered.
        self._queue.put(entry)
        self._save_queue()
        for sink in sinks:
            if sink.id in taken:
                elements.append(taken[sink.id])
                continue
            answer = self._sender.send(sink, alert)
            element = sink_element(sink.id, sink.type, answer)
            elements.append(element)
            if answer.reason:
                waiting[sink.id] = answer.reason
                continue
            entry = entry.took(element)
            self._queue.put(entry)
            self._save_queue()
        return entry._replace(waiting=waiting), elements

    def _skip(self, escalation: Escalation, reason: str, resolution: Resolution, *, retry: int = 0) -> None:
        head = self._progress.head()
        self._rows.append(
            skipped_row(head, escalation, reason, resolution.severity, resolution.document, retry=retry)
        )

    def _record(self, row: dict[str, JSON], escalation: Escalation, began: float) -> None:
        self._rows.append(row)
        self._steps.append(
            traceindex.Entry(
                trace_id=escalation.trace_id,
                at=began,
                loop_id=escalation.loop_id,
                kind="alert",
                status=row["status"],
                seconds=max(0.0, self._clock() - began),
                file=os.path.relpath(self._paths.alert_telemetry, self._order.repo_path),
                detail={
                    "category": escalation.category,
                    **{name: row[name] for name in traceindex.DETAIL_MEMBERS["alert"] if name in row},
                    "sinks": {sink["id"]: sink["httpStatus"] or sink["reasonCode"] for sink in row["sinks"]},
                },
            )
        )

    # --- on disk ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Record all that was done, in the order that a crash needs. Raises OpsError `state_unwritable`."""
        for entry in self._queue.take_surplus():
            self._give_up(entry, self._read(entry.escalation), f"more than {MAX_ENTRIES} alerts wait")
        self._save_queue()
        self._tell_telemetry()
        self._progress.write_state()
        for line in self._done:
            self._queue.remove(line)
        self._done.clear()
        self._save_queue()

    def _save_queue(self) -> None:
        self._queue.save(self._clock())

    def _tell_telemetry(self) -> None:
        """Write rows and steps, failing open: what was sent was sent."""
        for row in self._rows:
            LoopStore.append_telemetry(self._paths.alert_telemetry, row)
        self._rows.clear()
        traceindex.append(self._order.repo_path, self._steps)
        self._steps.clear()


def _reason_to_skip(resolution: Resolution, sinks: Sequence[Sink]) -> str:
    """Why nobody is told; "" when somebody is."""
    if not resolution.should_dispatch:
        return "severity_below_min"
    return "" if sinks else "no_dispatchable_sinks"
