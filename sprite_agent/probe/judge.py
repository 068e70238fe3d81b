"""What the answers of an agent mean for its steps. Pure."""

from collections import Counter
from collections.abc import Sequence

from sprite_agent.probe.steps import Found, lost, skip, warn, well
from sprite_agent.probe.target import Target
from spritemesh import __version__
from spritemesh.errors import OpsError
from spritemesh.reasons import REASONS
from superloop.ops.v1 import sprite_pb2

# Events of a stream that are looked at.
SAMPLE_EVENTS = 10
# As a session judges it (manager.core.liveness).
SKEW_SECONDS = 5.0
# What a caller is refused for after its token was found right.
_OF_SIGNATURE = frozenset({"signature_missing", "signature_wrong", "signature_expired", "nonce_replayed"})
_BEHIND_TOKEN = _OF_SIGNATURE | {"identity_not_allowed"}
_SHOWN_LOOPS = 3
# Seconds since 1970 of what protobuf calls a time.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799


def judge_health(error: OpsError, *, is_encrypted: bool) -> Found:
    """Why somebody who takes connections did not say how he is, over gRPC. Raises what explains itself."""
    if error.reason == "unsupported_method":
        return warn(error.reason, f"what answers speaks gRPC and has no health service: {error.message}")
    if error.reason not in {"agent_unreachable", "deadline_exceeded"}:
        raise error
    told = "speaks no gRPC" if error.reason == "agent_unreachable" else "says nothing"
    then = "See what listens there; an agent with TLS is asked with grpcs://."
    if is_encrypted:
        then = "See what listens there, and whether the agent wants a client certificate."
    return lost(error.reason, f"somebody takes connections, and {told}: {error.message}", then)


def judge_refusal(target: Target, error: OpsError) -> Found:
    """The token, after a call was refused. Raises the error unless the token was right."""
    if error.reason in _BEHIND_TOKEN:
        return well("it was taken" if target.token else "none is asked for")
    raise error


def judge_signature(target: Target, error: OpsError | None) -> Found:
    """The signature, after a call. error: why it was refused; raised when that is about signatures."""
    if error is not None and error.reason in _OF_SIGNATURE:
        raise error
    if target.signer is None:
        return skip("no key was given, and none is asked for")
    return well("it was taken")


def judge_clock(agent: float, sent: float, received: float, *, precision: float = 0.0) -> Found:
    """The agent's clock, which it read between two moments of ours; epoch seconds.

    precision: by how much its time was cut.
    """
    offset = 0.0
    if agent + precision < sent:
        offset = agent + precision - sent
    elif agent > received:
        offset = agent - received
    told = f"{abs(offset):.1f} s {'ahead' if offset > 0 else 'behind'}" if offset else "the same"
    told += f", to within {max(received - sent, precision):.3f} s"
    if abs(offset) > SKEW_SECONDS:
        return warn("clock_skew", f"the agent's clock is {told}")
    return well(told)


def judge_heartbeat_time(beat: sprite_pb2.Heartbeat) -> float:
    """The agent's clock, epoch seconds. Raises OpsError `service_response_invalid` for what is no time."""
    at = beat.sent_at
    if not beat.HasField("sent_at") or not _EARLIEST <= at.seconds <= _LATEST or not 0 <= at.nanos < 10**9:
        raise OpsError("service_response_invalid", "the agent sent a heartbeat with a time that cannot be")
    return at.seconds + at.nanos / 1e9


def told_version(beat: sprite_pb2.Heartbeat, opened: sprite_pb2.Opened | None, *, package: str) -> Found:
    """What the agent says of itself. opened: of a stream, None when there was none.

    Raises OpsError `service_response_invalid` for an agent that does not say which it is.
    """
    version = beat.agent.version
    if not version or not beat.boot_id:
        raise OpsError("service_response_invalid", "the agent tells neither version nor boot id")
    here = "the same here" if version == __version__ else f"here it is {__version__}"
    told = f"{package}; agent {version} ({here}); sprite {beat.sprite_id or 'without id'}"
    if opened is not None:
        told += f"; can {', '.join(opened.capabilities) or 'only read'}"
    return well(told)


def judge_loops(found: sprite_pb2.ListLoopsResponse, wanted: str) -> Found:
    """The list of loops. wanted: id of the loop that matters, "" for all.

    Raises OpsError `loop_not_found`.
    """
    loops = found.loops
    more = " or more" if found.next_page_token else ""
    if wanted and not more and not any(loop.loop_id == wanted for loop in loops):
        raise OpsError("loop_not_found", f"the agent has no loop {wanted}; it has {_names(loops)}")
    unread = [loop for loop in loops if loop.unavailable_reason and wanted in ("", loop.loop_id)]
    told = f"{len(loops)}{more}: {_names(loops)}"
    if not unread:
        return well(told)
    first = unread[0].unavailable_reason
    return warn(
        first if first in REASONS else "snapshot_unavailable",
        f"{told}; cannot be read: {len(unread)}, such as {unread[0].loop_id}",
    )


def judge_stream(loop_id: str, messages: Sequence[sprite_pb2.WatchEventsResponse]) -> Found:
    """A stream over the last events of a loop. Raises OpsError where it is against docs/wire.md."""
    kinds = [message.WhichOneof("payload") for message in messages]
    if not kinds or kinds[0] != "opened":
        raise OpsError(
            "service_response_invalid", f"the stream begins with {kinds[0] if kinds else 'nothing'}"
        )
    if "goodbye" not in kinds:
        raise OpsError("stream_broken", f"the stream ended after {kinds[-1]}, without a goodbye")
    events = sum(len(message.batch.events) for message in messages)
    bookmarks, resets = Counter(kinds)["bookmark"], Counter(kinds)["log_reset"]
    told = f"loop {loop_id}: opened, {events} events, {bookmarks} bookmarks, {messages[-1].goodbye.reason}"
    invalid = [message.invalid_line for message in messages if message.HasField("invalid_line")]
    if invalid:
        reason = invalid[0].reason
        return warn(
            reason if reason in REASONS else "invalid_json_line",
            f"{told}; line {invalid[0].line} is no event",
        )
    return warn("log_replaced", told) if resets else well(told)


def _names(loops: Sequence[sprite_pb2.LoopSummary]) -> str:
    names = [loop.loop_id for loop in loops[:_SHOWN_LOOPS]]
    more = len(loops) - len(names)
    return (", ".join(names) or "none") + (f" and {more} more" if more else "")
