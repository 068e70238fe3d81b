"""How much of everything a server takes: one table of bounds, each with a name, a default and a range."""

import argparse
from collections.abc import Iterable
from typing import NamedTuple

from spritemesh.commandline import Repeated
from spritemesh.errors import OpsError


class Limits(NamedTuple):
    """The bounds of one server, as `BOUNDS` describes them.

    streams: both kinds for two thousand subscribers; each costs memory. streams_per_connection: more calls at
    a time than gRPC may have waiting would get calls of others refused.
    """

    request_bytes: int = 256 * 1024
    metadata_bytes: int = 32 * 1024
    streams: int = 4096
    streams_per_connection: int = 1024
    subscribers_per_loop: int = 2048
    connections: int = 4096
    http_connections: int = 512
    control_per_minute: int = 1200
    failures_per_minute: int = 120
    request_seconds: float = 10
    idle_seconds: float = 150
    unary_seconds: float = 30


class Bound(NamedTuple):
    """Of one limit. name: of `--limit NAME=N`. least, most: what N may be. reason: why more is refused; "":
    it is, without a word."""

    name: str
    least: int
    most: int
    reason: str
    meaning: str


# In the order of Limits.
BOUNDS: tuple[Bound, ...] = (
    Bound("request-bytes", 1024, 16 * 1024 * 1024, "message_too_large", "bytes of one request"),
    Bound(
        "metadata-bytes",
        1024,
        1024 * 1024,
        "metadata_too_large",
        "bytes of the metadata or headers of a call",
    ),
    Bound("streams", 1, 1_000_000, "too_many_streams", "streams open at a time"),
    Bound("streams-per-connection", 1, 100_000, "too_many_streams", "calls open at a time on one connection"),
    Bound(
        "subscribers-per-loop",
        1,
        1_000_000,
        "too_many_subscribers",
        "event streams, and trace streams, of one loop at a time",
    ),
    Bound("connections", 1, 100_000, "", "connections over gRPC at a time"),
    Bound("http-connections", 1, 100_000, "too_many_streams", "connections over HTTP at a time"),
    Bound(
        "control-per-minute",
        1,
        1_000_000,
        "control_rate_limited",
        "control requests of one identity in a minute",
    ),
    Bound(
        "failures-per-minute",
        1,
        1_000_000,
        "too_many_failures",
        "failed authentications of one address in a minute",
    ),
    Bound(
        "request-seconds",
        1,
        3600,
        "deadline_exceeded",
        "seconds for a connection to begin, and for each request to arrive",
    ),
    Bound("idle-seconds", 1, 86_400, "", "seconds for a connection over gRPC without a call"),
    Bound("unary-seconds", 1, 3600, "deadline_exceeded", "seconds for a call that sets no deadline itself"),
)
_FIELDS = dict(zip((bound.name for bound in BOUNDS), Limits._fields, strict=True))


def value_of(limits: Limits, bound: Bound) -> float:
    """What is set for a bound."""
    value: float = getattr(limits, _FIELDS[bound.name])
    return value


def add_limit_flag(parser: argparse.ArgumentParser, defaults: Limits) -> None:
    """`--limit`, which may be given several times."""
    names = ", ".join(f"{bound.name} ({value_of(defaults, bound)})" for bound in BOUNDS)
    parser.add_argument(
        "--limit",
        action=Repeated,
        metavar="NAME=N",
        help=f"another bound than the default; may be repeated; names and defaults: {names}",
    )


def read_limits(words: Iterable[str], defaults: Limits) -> Limits:
    """The limits of the values of `--limit`. Raises OpsError `invalid_request` naming limit and range."""
    found: dict[str, int] = {}
    bounds = {bound.name: bound for bound in BOUNDS}
    for word in words:
        name, equals, text = word.partition("=")
        bound = bounds.get(name)
        if bound is None or not equals:
            known = ", ".join(bounds)
            raise OpsError(
                "invalid_request", f"--limit must be NAME=N with one of {known}: {word}", field="--limit"
            )
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not bound.least <= value <= bound.most:
            raise OpsError(
                "invalid_request",
                f"--limit {name} must be a whole number from {bound.least} to {bound.most}: {text}",
                field="--limit",
            )
        found[_FIELDS[name]] = value
    return defaults._replace(**found)
