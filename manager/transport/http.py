"""A v1 service, or an agent's bridge, over HTTP (contract D).

What HTTP cannot tell, compared with gRPC: digests, so that a replaced log is noticed only by a cursor beyond
its end; lines that are no events, which fail the answer that would hold them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from manager.transport.backoff import wait_for_return
from manager.transport.base import Controlled, Endpoint, Retry, control_command
from manager.transport.http_client import Answer, HttpClient, NoAnswer, Timeouts, error_of, may_mend
from manager.transport.http_events import Page, goodbye, messages_of, opened, read_page
from spritemesh.bridge import snapshot_from_json
from spritemesh.errors import OpsError, kind_of
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

if TYPE_CHECKING:
    from spritemesh.control import ControlRequest
    from superloop.ops.v1 import telemetry_pb2

# Events of one answer: it is gathered whole on both sides.
_PAGE_EVENTS = 1000
# How often a follower asks.
_POLL_SECONDS = 1.0
# Failures of a page that a smaller one, which ends before its cause, does not meet.
_ASK_FOR_LESS = frozenset(
    {
        "invalid_json_line",
        "line_not_object",
        "line_too_long",
        "message_too_large",
        "missing_event_name",
        "missing_event_timestamp",
    }
)


class Failure(NamedTuple):
    """Why there is no answer. passing: the same request may find one later."""

    error: OpsError
    passing: bool


class HttpTransport:
    """Reads loops, and steps in, through a service; connects at the first request."""

    name = "sprite_service"

    def __init__(self, endpoint: Endpoint, retry: Retry, timeouts: Timeouts | None = None) -> None:
        self._retry = retry
        self._client = HttpClient(endpoint, timeouts)

    def snapshot(
        self,
        loop_id: str,
        *,
        run_id: str = "",
        trace_id: str | None = None,
        pass_invalid_lines: bool = False,  # noqa: ARG002 - v1 has no such wish
    ) -> pb.LoopRunSnapshot:
        answer = self._get("/ops/snapshot", {"loopId": loop_id}, trace_id, self._retry.attempts)
        if isinstance(answer, Failure):
            raise answer.error
        document = answer.document()
        if not isinstance(document, dict):
            raise OpsError(
                "service_response_invalid",
                f"{answer.what}: a snapshot is an object, found {kind_of(document)}",
            )
        snapshot = snapshot_from_json(document)
        if run_id:
            snapshot.run.run_id = run_id
        if trace_id is not None and not trace_id.isascii():
            snapshot.trace_id = trace_id  # no header can hold it
        return snapshot

    def events(
        self,
        loop_id: str,
        after: pb.LogPosition | None,
        *,
        follow: bool = False,
        max_events: int = 0,
        trace_id: str | None = None,
    ) -> Iterator[sprite_pb2.WatchEventsResponse]:
        line = 0 if after is None else after.line
        yield opened(line, follow=follow, max_events=max_events)
        sent, attempt, size = 0, 1, _PAGE_EVENTS
        reached: tuple[int, int] | None = None
        while True:
            left = max_events - sent if max_events else 0
            wanted = min(size, left) if left else size
            page = self._page(loop_id, line, wanted, trace_id, tries=1 if follow else self._retry.attempts)
            if isinstance(page, Failure):
                if page.error.reason in _ASK_FOR_LESS and wanted > 1:
                    size = wanted // 2  # what precedes the cause is delivered
                    continue
                if not follow or not page.passing:
                    raise page.error
                wait_for_return(self._retry, page.error, attempt)
                self._client.renew()
                attempt += 1
                continue
            attempt = 1
            caught_up = len(page.events) != wanted or page.offset >= page.line_count
            page = page.cut(left)
            if reached is not None and page.offset < line:
                raise OpsError("service_response_invalid", f"the service went back from line {line}")
            if page.events or reached != page[1:]:
                yield from messages_of(page)
            reached = page[1:]
            sent += len(page.events)
            if max_events and sent >= max_events:
                yield goodbye("max_events_reached")
                return
            if not caught_up and page.offset <= line:
                raise OpsError("service_response_invalid", f"the service does not get beyond line {line}")
            line = page.offset
            if not caught_up:
                continue
            if not follow:
                yield goodbye("drained_to_head")
                return
            size = _PAGE_EVENTS
            time.sleep(_POLL_SECONDS)

    def trace_mark(self, _loop_id: str) -> int | None:
        return 0

    def traces(
        self, _loop_id: str, _after: "Sequence[telemetry_pb2.FilePlace]", _seconds: float
    ) -> "Iterator[telemetry_pb2.WatchTracesResponse]":
        raise OpsError("unsupported_method", "a v1 service has no traces")

    def control(self, request: "ControlRequest") -> Controlled:
        # Late: most commands only read.
        from manager.transport.delivery import deliver
        from manager.transport.http_control import ControlPost, check_target

        check_target(request, self.snapshot, self._client)
        post = ControlPost(self._client)
        command = control_command(self._client.base_url)
        return deliver(lambda: post.send(request), self._retry, request=request, command=command)

    def close(self) -> None:
        self._client.close()

    def _page(
        self, loop_id: str, line: int, wanted: int, trace_id: str | None, *, tries: int
    ) -> Page | Failure:
        query: dict[str, str | int] = {"loopId": loop_id, "cursor": line, "maxEvents": wanted}
        answer = self._get("/ops/events", query, trace_id, tries)
        return answer if isinstance(answer, Failure) else read_page(answer.document(), answer.what)

    def _get(
        self, path: str, query: Mapping[str, str | int], trace_id: str | None, tries: int
    ) -> Answer | Failure:
        """A success, or the last failure.

        It is tried again as contract D.5 says, and after a lost connection, too (L16).
        """
        attempt = 1
        while True:
            found = self._get_once(path, query, trace_id)
            if not isinstance(found, Failure) or not found.passing or attempt >= tries:
                return found
            time.sleep(max(self._retry.backoff_seconds * attempt, found.error.retry_after or 0))
            attempt += 1

    def _get_once(self, path: str, query: Mapping[str, str | int], trace_id: str | None) -> Answer | Failure:
        try:
            answer = self._client.request("GET", path, query=query, trace_id=trace_id)
        except NoAnswer as lost:
            # Certificates that were believed before are being exchanged.
            passing = lost.error.reason != "tls_failed" or self._client.was_answered
            return Failure(lost.error, passing=passing)
        except OpsError as refused:
            return Failure(refused, passing=False)  # more than is read
        if answer.ok:
            return answer
        error = error_of(answer, has_token=self._client.has_token)
        return Failure(error, may_mend(answer, error))
