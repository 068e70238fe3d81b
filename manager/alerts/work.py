"""Routing, sending and recording: what `dispatch` does once there is something to do."""

import os
from collections.abc import Callable, Mapping, Sequence

from manager.alerts.catalog import read_alert_catalog
from manager.alerts.progress import Budget, Order, Progress
from manager.alerts.queue import RetryQueue
from manager.alerts.sending import Sender
from manager.alerts.source import digest_of, read_lines
from manager.core.alert_catalog import SEVERITIES, Catalog, Resolution, Sink, resolve
from manager.core.alert_payloads import Alert
from manager.core.alert_retries import MAX_ENTRIES, MAX_RETRIES_PER_PASS, MAX_TRIES, Entry, is_due
from manager.core.alert_rows import (
    Answer,
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
# Of the time of a pass, for retries: what is new has its turn, too.
_SHARE_OF_RETRIES = 0.5


class Work:
    """One pass: `retry`, then `take` for each line, then `save`; `close` it in any case."""

    def __init__(
        self,
        paths: LoopFiles,
        order: Order,
        progress: Progress,
        budget: Budget,
        *,
        environment: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        """Raises OpsError `document_invalid` for a retry queue that cannot be used."""
        self._paths = paths
        self._order = order
        self._progress = progress
        self._budget = budget
        self._environment = environment
        self._clock = clock
        self._queue = RetryQueue(paths.alert_retries, order.loop_id)
        self._sender = Sender(environment, clock)
        self._catalog: Catalog | OpsError | None = None
        self._rows: list[dict[str, JSON]] = []
        self._steps: list[traceindex.Entry] = []
        # Keys of entries that are of no use once the state says that their lines are passed.
        self._done: list[tuple[int, str]] = []

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
        entry = Entry(number, document, digest=digest_of(line))
        self._take(self._queue.get(entry.key) or entry, escalation)
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
                self._done.append(entry.key)
            else:
                self._wait(entry, escalation, was_asked=True)
            return
        skipped = _reason_to_skip(resolution, resolution.sinks)
        if skipped:
            progress.counts = progress.counts.skip()
            self._skip(escalation, skipped, resolution)
            self._done.append(entry.key)
            return
        began = self._clock()
        told, sinks = self._tell(entry, escalation, resolution.sinks, resolution.severity)
        progress.counts = progress.counts.attempt(sinks)
        row = attempted_row(progress.head(), escalation, resolution.severity, resolution.document, sinks)
        self._record(row, escalation, began)
        if not self._wait(told, escalation, was_asked=told.asked != entry.asked):
            self._done.append(entry.key)
        self.save()

    def _fail(self, reason: str, row: dict[str, JSON]) -> None:
        self._progress.counts = self._progress.counts.fail(reason)
        self._rows.append(row)

    # --- retries ------------------------------------------------------------------------------------

    def retry(self) -> None:
        """Try again what is due. Raises OpsError `state_unwritable`, `document_invalid`."""
        to_come = self._to_come()
        passed = [entry for entry in self._queue if entry.key not in to_come]
        for entry in passed:
            # All sinks took it, and a crash came before the entry was removed.
            if entry.settled:
                self._queue.remove(entry.key)
        now = self._clock()
        due = [entry for entry in passed if not entry.settled and is_due(entry, now)]
        tried = 0
        for entry in sorted(due, key=lambda entry: entry.urgency):
            if tried == MAX_RETRIES_PER_PASS or self._budget.is_used_up(_SHARE_OF_RETRIES):
                break
            if self._retry(entry, self._read(entry.escalation)):
                tried += 1
                self._tell_telemetry()
                self._save_queue()
        self._save_queue()

    def _to_come(self) -> set[tuple[int, str]]:
        """Keys of entries whose lines are not passed yet: a crash came in between, and `take` goes on there.

        Other entries beyond the offset are of a file that is there no more; they have their own copy.
        """
        offset = self._progress.offset
        ahead = {entry.key for entry in self._queue if entry.line > offset}
        if not ahead or self._progress.lines is None:
            return set()
        end = min(max(ahead)[0], self._progress.lines)
        lines = read_lines(self._paths.escalations, offset, end)
        return {(number, digest_of(line)) for number, line in lines} & ahead

    def _retry(self, entry: Entry, escalation: Escalation) -> bool:
        """Try an entry again; False when nothing was to be tried now."""
        head = self._progress.head()
        # An entry of which nobody was asked so far has no tries.
        tries = max(1, entry.tries)
        resolution = self._resolve(escalation)
        if isinstance(resolution, OpsError):
            self._rows.append(unrouted_row(head, escalation, resolution.message, retry=tries))
            if not self._wait(entry, escalation, was_asked=True):
                self._queue.remove(entry.key)
            return True
        # The catalog of now decides: a sink that was switched off, or that nobody routes to, is not told.
        sinks = [sink for sink in resolution.sinks if sink.id in entry.waiting or not entry.routed]
        skipped = _reason_to_skip(resolution, sinks)
        if skipped:
            self._skip(escalation, skipped, resolution, retry=tries)
            self._queue.remove(entry.key)
            return True
        if all(self._sender.silence(sink) for sink in sinks):
            self._wait(entry, escalation, was_asked=False)
            return False
        began = self._clock()
        told, elements = self._tell(entry, escalation, sinks, resolution.severity)
        row = attempted_row(
            self._progress.head(), escalation, resolution.severity, resolution.document, elements, retry=tries
        )
        self._record(row, escalation, began)
        if not self._wait(told, escalation, was_asked=told.asked != entry.asked):
            self._queue.remove(entry.key)
        return True

    def _wait(self, entry: Entry, escalation: Escalation, *, was_asked: bool) -> bool:
        """Let an entry wait for its next try, except for whom it was tried often enough; False when nobody is
        left. was_asked: anybody, at this try."""
        if entry.settled:
            return False
        now = self._clock()
        entry = entry.failed(entry.waiting, now) if was_asked else entry.postponed(entry.waiting, now)
        spent = entry.spent
        if spent or entry.exhausted:
            self._give_up(entry, escalation, spent, f"given up after {MAX_TRIES} tries")
            left = {name: reason for name, reason in entry.waiting.items() if name not in spent}
            entry = entry._replace(waiting=left)
        if entry.settled or entry.exhausted:
            return False
        self._queue.put(entry)
        return True

    def _give_up(self, entry: Entry, escalation: Escalation, sinks: Sequence[str], why: str) -> None:
        told = ", ".join(f"{name}: {entry.waiting[name] or 'not asked'}" for name in sinks)
        message = f"{why} ({told or 'no route'})"
        self._rows.append(exhausted_row(self._progress.head(), escalation, sinks, message))

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
            return OpsError(
                "invalid_request",
                f"the escalation's severity must be one of {', '.join(SEVERITIES)},"
                f" not {escalation.severity!r}",
            )
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
        # At first as before; then with what each says now.
        waiting = {sink.id: entry.waiting.get(sink.id, "") for sink in sinks if sink.id not in taken}
        entry = entry._replace(routed=True, waiting=waiting)
        # If the queue cannot be written, nothing is sent: what took an alert could not be remembered.
        self._queue.put(entry)
        self._save_queue()
        for sink in sinks:
            if sink.id in taken:
                elements.append(taken[sink.id])
                continue
            answer = self._silence(sink)
            if answer is None:
                answer = self._sender.send(sink, alert)
                entry = entry.was_asked(sink.id, self._clock())
            element = sink_element(sink.id, sink.type, answer)
            elements.append(element)
            if answer.reason:
                entry = entry._replace(waiting=entry.waiting | {sink.id: answer.reason})
                continue
            entry = entry.took(element)
            self._queue.put(entry)
            self._save_queue()
        return entry, elements

    def _silence(self, sink: Sink) -> Answer | None:
        """What stands for the answer of a sink that is not asked now; None when it is."""
        if self._budget.is_used_up():
            return Answer("sink_timeout", None, "not asked: the time of this pass is used up")
        return self._sender.silence(sink)

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
            why = f"more than {MAX_ENTRIES} alerts wait"
            self._give_up(entry, self._read(entry.escalation), list(entry.waiting), why)
        self._save_queue()
        self._tell_telemetry()
        self._progress.write_state()
        for key in self._done:
            self._queue.remove(key)
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
