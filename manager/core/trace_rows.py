"""What rows of artifacts tell of a trace, beside the index (see `manager.core.trace`)."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from spritemesh.jsontext import JSON
from spritemesh.times import parse_rfc3339
from spritemesh.traceentry import DETAIL_MEMBERS, Entry, duration
from spritemesh.values import drop, first, get

# Times of artifacts are cut to seconds, at either end.
CUT_SECONDS = 2.0
# How long a control request can take: longest confirmation, and the command before it.
_LONGEST_CONTROL_SECONDS = 700.0


class Row(NamedTuple):
    """A step that an artifact tells of. slack: by how many seconds its time may differ from the index's."""

    entry: Entry
    slack: float = CUT_SECONDS


# --- rows of artifacts ------------------------------------------------------------------------------------


def rows_of(artifact: str, row: JSON, *, trace_id: str, loop_id: str, file: str) -> list[Row]:
    """The steps that one row tells of; none when it is of another trace or not understood.

    artifact: a key of ARTIFACTS. file: as in Entry.
    """
    ids = (get(row, "traceId"), get(row, "escalationTraceId"))
    if artifact != "events" and trace_id not in ids:
        return []
    base = Entry(trace_id, 0.0, loop_id, "", file=file)
    return [told for told in ARTIFACTS[artifact](row, base) if told.entry.at]


def _intent(row: JSON, base: Entry) -> list[Row]:
    """A row of control.jsonl, which tells when it began, or of intents.jsonl, which tells when it ended."""
    detail = _members(row, "idempotencyKey", "intent", "requestedBy", "transport", "exitCode", "reasonCode")
    began = _time(row, "startedAt")
    entry = base._replace(
        kind="intent",
        at=began or _time(row, "timestamp"),
        seconds=duration(get(row, "durationSeconds")),
        status=_text(row, "status"),
        detail=detail,
    )
    return [Row(entry, CUT_SECONDS if began else _LONGEST_CONTROL_SECONDS)]


def _invocation(row: JSON, base: Entry) -> list[Row]:
    """A row of control-invocations.jsonl: the call, and of a local one what it ran and how it looked."""
    began, seconds = _time(row, "startedAt"), duration(get(row, "outcome", "durationSeconds"))
    key = _members(row, "idempotencyKey")
    reason = get(row, "outcome", "reasonCode")
    replayed = get(row, "execution", "replayed") is True or None
    detail = {**_members(row, "idempotencyKey", "intent", "transport"), "reasonCode": reason}
    slack = CUT_SECONDS + (seconds or 0)
    told = [
        base._replace(
            kind="invocation",
            at=began,
            seconds=seconds,
            status=_text(row, "outcome", "status"),
            detail=drop({**detail, "replayed": replayed}),
        )
    ]
    status = _text(row, "execution", "status")
    if get(row, "transport") == "local" and status != "refused" and not replayed:
        exit_code = {"exitCode": get(row, "execution", "exitCode")}
        told.append(base._replace(kind="runtime", at=began, status=status, detail=drop({**key, **exit_code})))
    if get(row, "confirmation", "attempted") is True and not replayed:
        found = get(row, "confirmation", "outcome")
        told.append(
            base._replace(
                kind="confirmation",
                at=_time(found, "observedAt") or _time(row, "timestamp"),
                status=_text(row, "confirmation", "status"),
                detail={
                    **key,
                    **_members(found, "reason", "attempts", "observedStatus", "observedLastEvent"),
                },
            )
        )
    return [Row(entry, slack) for entry in told]


def _session(row: JSON, base: Entry) -> list[Row]:
    """A record of a live session: a connection opened or lost, a log replaced."""
    detail = _members(row, *DETAIL_MEMBERS["session"])
    return [Row(base._replace(kind="session", at=_time(row, "timestamp"), detail=detail))]


def _reconcile(row: JSON, base: Entry) -> list[Row]:
    entry = base._replace(
        kind="reconcile",
        at=_time(row, "startedAt") or _time(row, "timestamp"),
        seconds=duration(get(row, "durationSeconds")),
        status=_text(row, "status"),
        detail=_members(row, *DETAIL_MEMBERS["reconcile"]),
    )
    return [Row(entry)]


def _escalation(row: JSON, base: Entry) -> list[Row]:
    entry = base._replace(
        kind="escalation", at=_time(row, "timestamp"), detail=_members(row, *DETAIL_MEMBERS["escalation"])
    )
    return [Row(entry)]


def _alert(row: JSON, base: Entry) -> list[Row]:
    category = {"category": first(get(row, "escalationCategory"), get(row, "category"), None)}
    entry = base._replace(
        kind="alert",
        at=_time(row, "timestamp"),
        status=_text(row, "status"),
        detail={**drop(category), **_members(row, *DETAIL_MEMBERS["alert"])},
    )
    return [Row(entry)]


def _event(row: JSON, base: Entry) -> list[Row]:
    """An event of the log that carries the trace id, in itself or in its payload."""
    places = (row, get(row, "data"), get(row, "payload"))
    values = [value for place in places if isinstance(place, dict) for value in place.values()]
    name = first(get(row, "event"), get(row, "type"), get(row, "name"), None)
    if base.trace_id not in values or not isinstance(name, str):
        return []
    return [Row(base._replace(kind="event", at=_time(row, "timestamp"), detail={"name": name}))]


# Artifact -> what its rows tell. Those of one control request come first that tell of it best.
ARTIFACTS: Mapping[str, Callable[[JSON, Entry], list[Row]]] = {
    "control_telemetry": _intent,
    "intents": _intent,
    "control_invocations": _invocation,
    "session_telemetry": _session,
    "reconcile_telemetry": _reconcile,
    "escalations": _escalation,
    "alert_telemetry": _alert,
    "events": _event,
}


def merge(entries: Sequence[Entry], rows: Iterable[Row]) -> list[Entry]:
    """`entries` and what `rows`, all of one artifact, tell beside them.

    A row that tells of a step among `entries` only adds members that the step lacks; each step is told by at
    most one row of its kind. Without entries: what the rows tell among themselves.
    """
    merged = list(entries)
    groups: dict[tuple[str, str], list[tuple[float, int]]] = {}
    longest: dict[tuple[str, str], float] = {}
    for place, entry in enumerate(entries):
        kind = (entry.kind, entry.loop_id)
        groups.setdefault(kind, []).append((entry.at, place))
        longest[kind] = max(longest.get(kind, 0.0), entry.seconds or 0.0)
    for group in groups.values():
        group.sort()
    told: set[int] = set()
    once = {key: place for place, entry in enumerate(entries) if (key := _request_key(entry))}
    for row in rows:
        other = row.entry
        # A repeated request, and a manager beside its agent, write rows of their own about one request.
        place = once.get(request_key := _request_key(other), -1)
        if place >= 0 and _distance(merged[place], other.at) <= _LONGEST_CONTROL_SECONDS:
            merged[place] = _completed(merged[place], other)
            continue
        if request_key:
            once[request_key] = len(merged)
        kind = (other.kind, other.loop_id)
        group = groups.get(kind, [])
        first_place = bisect_left(group, (other.at - row.slack - longest.get(kind, 0.0), -1))
        last_place = bisect_right(group, (other.at + row.slack, len(merged)))
        same = [
            (_distance(merged[place], other.at), place)
            for _, place in group[first_place:last_place]
            if place not in told and _may_be_same(merged[place], other)
        ]
        distance, place = min(same, default=(row.slack + 1, -1))
        if distance <= row.slack:
            told.add(place)
            merged[place] = _completed(merged[place], other)
        else:
            merged.append(other)
    return merged


def _request_key(entry: Entry) -> tuple[str, ...]:
    """The same for all that tells of a step which a control request has once; () for other steps."""
    key = _text(entry.detail, "idempotencyKey")
    occurs_once = entry.kind in {"intent", "runtime", "confirmation"}
    return (entry.kind, entry.loop_id, key, entry.status) if key and occurs_once else ()


def _distance(entry: Entry, at: float) -> float:
    """Seconds between a moment and a step; 0 while it lasted, since a row may tell of its end."""
    return max(entry.at - at, at - entry.at - (entry.seconds or 0.0), 0.0)


def _may_be_same(entry: Entry, other: Entry) -> bool:
    names = ("idempotencyKey", "category", "name")
    return all(get(entry.detail, name) in (None, get(other.detail, name)) for name in names)


def _completed(entry: Entry, row: Entry) -> Entry:
    own = entry.detail if isinstance(entry.detail, dict) else {}
    more = {name: value for name, value in (row.detail or {}).items() if name not in own}
    return entry._replace(
        status=entry.status or row.status,
        seconds=row.seconds if entry.seconds is None else entry.seconds,
        file=entry.file or row.file,
        detail={**own, **more},
    )


# --- leniently read members -------------------------------------------------------------------------------


def _members(row: JSON, *names: str) -> dict[str, JSON]:
    return drop({name: get(row, name) for name in names})


def _text(row: JSON, *path: str) -> str:
    value = get(row, *path)
    return value if isinstance(value, str) else ""


def _time(row: JSON, name: str) -> float:
    return parse_rfc3339(get(row, name)) or 0.0
