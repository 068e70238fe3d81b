"""What is said of a dispatch: rows of telemetry/alerts.jsonl, counts, the state document (contract I.3)."""

from collections.abc import Sequence
from typing import NamedTuple

from spritemesh.jsontext import JSON
from spritemesh.values import drop, first, get, nz, text

CATEGORY = "alert_dispatch"
DISPATCHED = "dispatched"
PARTIAL = "partial"
FAILED = "failed"
SKIPPED = "skipped"

_MESSAGE_CHARS = 300


class Head(NamedTuple):
    """What every row begins with. timestamp: of contract 0.3. loop_id, trace_id: of the dispatch."""

    timestamp: str
    loop_id: str
    trace_id: str

    def members(self, loop_id: str = "") -> dict[str, JSON]:
        return {
            "timestamp": self.timestamp,
            "loopId": loop_id or self.loop_id,
            "traceId": self.trace_id,
        }


class Escalation(NamedTuple):
    """A line of escalations.jsonl. Texts are "" where the row has none; trace_id, loop_id: else of the
    dispatch."""

    document: JSON
    category: str
    severity: str
    timestamp: str
    trace_id: str
    loop_id: str


class Counts(NamedTuple):
    """Lines that a pass took, and what became of them; a line may be dispatched and failed."""

    processed: int = 0
    dispatched: int = 0
    skipped: int = 0
    failed: int = 0
    reasons: frozenset[str] = frozenset()

    def skip(self) -> "Counts":
        return self._replace(processed=self.processed + 1, skipped=self.skipped + 1)

    def fail(self, reason: str) -> "Counts":
        return self._replace(
            processed=self.processed + 1, failed=self.failed + 1, reasons=self.reasons | {reason}
        )

    def attempt(self, sinks: Sequence[JSON]) -> "Counts":
        """sinks: elements of the row."""
        failed = {sink["reasonCode"] for sink in sinks if sink["status"] != "success"}
        return self._replace(
            processed=self.processed + 1,
            dispatched=self.dispatched + any(sink["status"] == "success" for sink in sinks),
            failed=self.failed + bool(failed),
            reasons=self.reasons | failed,
        )

    @property
    def status(self) -> str:
        """The pass in one word."""
        if not self.processed:
            return "no_new_escalations"
        if not self.failed:
            return "success"
        return PARTIAL if self.dispatched else FAILED


class Answer(NamedTuple):
    """What came of asking one sink.

    reason: "" when it took the alert, else why not: missing_secret or one of the sink_ codes of
    spritemesh.reasons. http_status: None when there was no answer. message: None when there is none.
    """

    reason: str
    http_status: int | None
    message: str | None


def read_escalation(document: JSON, *, loop_id: str, trace_id: str) -> Escalation:
    """The facts of a row. loop_id, trace_id: of the dispatch."""

    def said(name: str) -> str:
        return text(first(get(document, name), ""))

    return Escalation(
        document=document,
        category=said("category"),
        severity=said("severity"),
        timestamp=said("timestamp"),
        trace_id=said("traceId") or trace_id,
        loop_id=said("loopId") or loop_id,
    )


def sink_element(sink_id: str, sink_type: str, answer: Answer) -> dict[str, JSON]:
    """An element of `sinks` of a row. Its reason codes are the coarse ones of v1."""
    head: dict[str, JSON] = {"id": sink_id, "type": sink_type}
    if not answer.reason:
        return head | {
            "status": "success",
            "httpStatus": answer.http_status,
            "reasonCode": None,
            "message": answer.message,
        }
    code = "http_error" if answer.http_status is not None else "request_failed"
    return head | {
        "status": "failed",
        "reasonCode": "missing_secret" if answer.reason == "missing_secret" else code,
        "httpStatus": answer.http_status,
        "message": answer.message,
    }


def invalid_row(head: Head, line: str) -> dict[str, JSON]:
    """Row for a line that is no JSON."""
    members = {"category": CATEGORY, "status": FAILED, "reasonCode": "invalid_escalation_json"}
    return head.members() | members | {"rawLine": line}


def uncategorised_row(head: Head, escalation: JSON) -> dict[str, JSON]:
    """Row for an escalation without a category."""
    members = {"category": CATEGORY, "status": FAILED, "reasonCode": "missing_escalation_category"}
    return head.members() | members | {"escalation": escalation}


def unrouted_row(head: Head, escalation: Escalation, message: str, *, retry: int = 0) -> dict[str, JSON]:
    """Row for an escalation that could not be routed. retry: number of the retry, 0 for the first try."""
    return drop(
        head.members()
        | _escalated(escalation)
        | {
            "status": FAILED,
            "reasonCode": "route_resolution_failed",
            "message": message[:_MESSAGE_CHARS],
            "escalation": escalation.document,
            "retryAttempt": retry or None,
        }
    )


def skipped_row(
    head: Head, escalation: Escalation, reason: str, severity: str, route: JSON, *, retry: int = 0
) -> dict[str, JSON]:
    """Row for an escalation that nobody is to be told of. severity: of the event. route: as resolved."""
    return drop(
        head.members()
        | _escalated(escalation)
        | {
            "eventSeverity": severity,
            "status": SKIPPED,
            "reasonCode": reason,
            "escalation": escalation.document,
            "route": route,
            "sinkCount": 0,
            "dispatchedSinkCount": 0,
            "failedSinkCount": 0,
            "retryAttempt": retry or None,
        }
    )


def attempted_row(
    head: Head, escalation: Escalation, severity: str, route: JSON, sinks: Sequence[JSON], *, retry: int = 0
) -> dict[str, JSON]:
    """Row for an escalation that sinks were told of. sinks: elements of those that this try is about."""
    told = sum(sink["status"] == "success" for sink in sinks)
    status, reason = DISPATCHED, None
    if told < len(sinks):
        status, reason = (PARTIAL, "partial_dispatch_failure") if told else (FAILED, "dispatch_failed")
    return drop(
        head.members(escalation.loop_id)
        | _escalated(escalation)
        | {
            "eventSeverity": severity,
            "status": status,
            "reasonCode": reason,
            "escalation": escalation.document,
            "route": route,
            "sinks": list(sinks),
            "sinkCount": len(sinks),
            "dispatchedSinkCount": told,
            "failedSinkCount": len(sinks) - told,
            "retryAttempt": retry or None,
        }
    )


def exhausted_row(head: Head, escalation: Escalation, sinks: Sequence[str], message: str) -> dict[str, JSON]:
    """Row for an escalation that is given up. sinks: ids of those that never took it."""
    return drop(
        head.members()
        | _escalated(escalation)
        | {
            "status": FAILED,
            "reasonCode": "alert_retries_exhausted",
            "message": message,
            "escalation": escalation.document,
            "waitingSinks": list(sinks),
        }
    )


def broken_row(head: Head, message: str) -> dict[str, JSON]:
    """Row for a dispatch that failed inside a pass of reconcile."""
    members = {"category": CATEGORY, "status": "failed_command", "reasonCode": "alert_dispatch_failed"}
    return head.members() | members | {"message": message}


def state_document(
    head: Head, counts: Counts, *, status: str, offset: int, line_count: int, escalations: str, telemetry: str
) -> dict[str, JSON]:
    """The dispatch state. offset: lines passed. escalations, telemetry: absolute paths."""
    return {
        "schemaVersion": "v1",
        "updatedAt": head.timestamp,
        "loopId": head.loop_id,
        "traceId": head.trace_id,
        "escalationsFile": escalations,
        "dispatchTelemetryFile": telemetry,
        "status": status,
        "processedCount": counts.processed,
        "dispatchedCount": counts.dispatched,
        "skippedCount": counts.skipped,
        "failedCount": counts.failed,
        "failureReasonCodes": sorted(counts.reasons),
        "escalationsLineOffset": offset,
        "escalationsLineCount": line_count,
    }


def _escalated(escalation: Escalation) -> dict[str, JSON]:
    return {
        "escalationTraceId": escalation.trace_id,
        "category": CATEGORY,
        "escalationCategory": escalation.category,
        "escalationTimestamp": nz(escalation.timestamp),
    }
