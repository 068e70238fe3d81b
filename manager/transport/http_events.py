"""Answers of GET /ops/events as the messages of a WatchEvents stream (contract D.3, G.1).

v1 has no digests: its batches prove no continuity, and its bookmarks name an offset and nothing more.
"""

from collections.abc import Iterator
from typing import NamedTuple

from spritemesh.bridge import event_from_json
from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON
from spritemesh.values import digits, get
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

_Message = sprite_pb2.WatchEventsResponse


class Page(NamedTuple):
    """One answer. offset: line behind its last event. line_count: complete lines of the log."""

    events: list[JSON]
    offset: int
    line_count: int

    def cut(self, wanted: int) -> "Page":
        """The first `wanted` events: a service may have ignored the limit. 0: all."""
        if not wanted or len(self.events) <= wanted:
            return self
        kept = self.events[:wanted]
        offset = digits(get(kept[-1], "cursor", "eventLineOffset"))
        if offset is None:
            raise OpsError(
                "service_response_invalid",
                f"the service sent more than the {wanted} events wanted, and no offset to stop at",
            )
        return Page(kept, offset, self.line_count)


def read_page(document: JSON, what: str) -> Page:
    """The page in an answer. Raises OpsError `service_response_invalid`, naming the member (contract G.1)."""
    if get(document, "ok") is not True:
        raise _invalid(what, "ok", get(document, "ok"), "true")
    events, cursor = get(document, "events"), get(document, "cursor")
    if not isinstance(events, list):
        raise _invalid(what, "events", events, "an array")
    if not isinstance(cursor, dict):
        raise _invalid(what, "cursor", cursor, "an object")
    numbers = []
    for name in ("eventLineOffset", "eventLineCount"):
        number = digits(cursor.get(name))
        if number is None or number >= 2**63:
            raise _invalid(what, f"cursor.{name}", cursor.get(name), "digits")
        numbers.append(number)
    return Page(events, *numbers)


def opened(line: int, *, follow: bool, max_events: int) -> _Message:
    """The first message of a stream that starts behind `line`."""
    message = _Message()
    message.opened.follow = follow
    message.opened.max_events = max_events
    message.opened.start.line = line
    return message


def messages_of(page: Page) -> Iterator[_Message]:
    """Batches of neighbouring events under the same header, then the bookmark behind them.

    Raises OpsError `projection_failed` for what is no event envelope.
    """
    batch: pb.EventBatch | None = None
    for number, document in enumerate(page.events, 1):
        single = event_from_json(document, what=f"event {number} of the answer")
        if batch is not None and _same_header(batch, single):
            batch.events.extend(single.events)
            batch.last_line = max(batch.last_line, single.last_line)
            continue
        if batch is not None:
            yield _with_head(page, batch=batch)
        batch = single
    if batch is not None:
        yield _with_head(page, batch=batch)
    yield bookmark(page)


def bookmark(page: Page) -> _Message:
    """ "You have everything up to here." """
    return _with_head(page, bookmark=sprite_pb2.Bookmark(position=pb.LogPosition(line=page.offset)))


def goodbye(reason: str) -> _Message:
    """The planned end of a stream."""
    return _Message(goodbye=sprite_pb2.Goodbye(reason=reason))


def _with_head(
    page: Page, *, batch: pb.EventBatch | None = None, bookmark: sprite_pb2.Bookmark | None = None
) -> _Message:
    head = sprite_pb2.LogHead(position=pb.LogPosition(line=page.line_count))
    return _Message(batch=batch, bookmark=bookmark, head=head)


def _same_header(batch: pb.EventBatch, other: pb.EventBatch) -> bool:
    return (
        batch.emitted_at == other.emitted_at
        and batch.line_count == other.line_count
        and batch.HasField("trace_id") == other.HasField("trace_id")
        and batch.trace_id == other.trace_id
        and batch.source == other.source
    )


def _invalid(what: str, member: str, value: JSON, expected: str) -> OpsError:
    return OpsError(
        "service_response_invalid",
        f"{what}: {member} must be {expected}, found {kind_of(value)}",
        field=member,
    )
