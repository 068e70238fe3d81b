"""What the manager asks of a loop, whoever answers: files here, an agent over gRPC, a v1 service."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from spritemesh.endpoints import Trust, check_token, is_port, is_unix_address
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

if TYPE_CHECKING:
    # Most commands only read, and need none of these.
    from spritemesh.bridge.told import Told
    from spritemesh.control import ControlRequest
    from spritemesh.signer import Signer
    from superloop.ops.v1 import control_pb2, telemetry_pb2


# Names of transports, as flags and documents spell them.
LOCAL = "local"
SPRITE_SERVICE = "sprite_service"


class Controlled(NamedTuple):
    """What became of a control request, as far as this side knows.

    outcome: the whole of it, None when no agent told one. recorded_at: the time that rows of it say which are
    written already, epoch seconds; None: there are none. error: why nobody told of an outcome, or what came
    after it; `told` says then what is certain.
    """

    told: "Told"
    outcome: "control_pb2.ControlOutcome | None" = None
    recorded_at: float | None = None
    error: OpsError | None = None

    @property
    def audited(self) -> bool:
        """Whether rows of it are written already."""
        return self.recorded_at is not None


def control_command(base_url: str) -> str:
    """A control request through a service as rows show it (contract E.4)."""
    return f"POST {base_url.removesuffix('/')}/ops/control"


class Transport(Protocol):
    """Reads loops, and steps in. All failures are OpsError.

    name: "local" or "sprite_service", as documents spell it.
    """

    name: str

    def snapshot(
        self,
        loop_id: str,
        *,
        run_id: str = "",
        trace_id: str | None = None,
        pass_invalid_lines: bool = False,
    ) -> pb.LoopRunSnapshot:
        """What is true of the loop now.

        pass_invalid_lines: tell of the last line that is an event, instead of failing at one that is none.
        """
        ...

    def events(
        self,
        loop_id: str,
        after: pb.LogPosition | None,
        *,
        follow: bool = False,
        max_events: int = 0,
        trace_id: str | None = None,
    ) -> Iterator[sprite_pb2.WatchEventsResponse]:
        """The messages of a WatchEvents stream after a place (None: the beginning), as docs/wire.md tells.

        A lost connection is taken up again where it broke, as far as the retry policy goes: then Opened
        comes again. With `follow` it ends only by an error or by closing the iterator.
        """
        ...

    def trace_mark(self, loop_id: str, /) -> int | None:
        """How the loop's trace files are marked, as in Heartbeat, 0: there is nothing to read; None: that is
        not known before `traces`."""
        ...

    def traces(
        self, loop_id: str, after: "Sequence[telemetry_pb2.FilePlace]", seconds: float, /
    ) -> "Iterator[telemetry_pb2.WatchTracesResponse]":
        """The messages of a WatchTraces stream after places, up to the ends of the files; tried once.

        seconds: all the time that it may take. An agent that is older is OpsError `unsupported_method`.
        """
        ...

    def control(self, request: "ControlRequest") -> Controlled:
        """Step in once, however often it has to be tried: each try has the request's key.

        request: checked, with a key and a trace id. Raises OpsError for a refusal: then nothing was run.
        """
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class Runtime(NamedTuple):
    """The runtime program that a local request runs. command None: of the environment (contract E.1)."""

    command: str | None = None
    timeout_seconds: float = 60.0


class Retry(NamedTuple):
    """How often to try a failed request, and how long to wait between.

    attempts: all tries, the first included. backoff_seconds: before try n + 1, n times this. told: hears
    of each wait that a following stream makes, with its seconds.
    """

    attempts: int = 3
    backoff_seconds: float = 1.0
    told: Callable[[OpsError, float], None] | None = None


class Endpoint(NamedTuple):
    """An agent: `target` as gRPC takes it, or the address of a service over HTTP.

    signer None: requests are not signed. trust None: without TLS.
    """

    target: str
    token: str
    signer: "Signer | None" = None
    trust: Trust | None = None

    @property
    def url(self) -> str:
        """As `parse_base_url` takes it."""
        if is_http_url(self.target) or is_unix_address(self.target):
            return self.target
        return f"{'grpc' if self.trust is None else 'grpcs'}://{self.target}"


def parse_base_url(
    url: str, token: str, origin: str = "--service-base-url", trust: Trust | None = None
) -> Endpoint:
    """grpc://HOST:PORT, grpcs://HOST:PORT with TLS, unix:///path, or the address of a service,
    http://HOST[:PORT][/path] or https.

    origin: the flag or member that the address came from. trust None: the system's authorities count, where
    there is TLS. Raises OpsError `invalid_request` naming it, also for a trust that would have no effect.
    """
    check_token(token, "--service-token")
    if url.startswith(("grpcs://", "https://")):
        trust = trust or Trust()
        _check_pair(trust)
    elif trust is not None:
        # Its owner believes that nobody listens.
        raise OpsError("invalid_request", f"{origin} must be grpcs:// or https:// for TLS", field=origin)
    if is_unix_address(url):
        return Endpoint(url, token)
    if is_http_url(url):
        return Endpoint(_http_base(url, origin), token, trust=trust)
    target = url.removeprefix("grpc://" if trust is None else "grpcs://").removesuffix("/")
    host, _, port = target.rpartition(":")
    if target == url or "://" in target or not host or "/" in target or not is_port(port):
        raise OpsError(
            "invalid_request",
            f"{origin} must be grpc://HOST:PORT, unix:///path or http://HOST:PORT, not {url!r}",
            field=origin,
        )
    return Endpoint(target, token, trust=trust)


def is_http_url(url: str) -> bool:
    """Whether a base URL, or the target of its endpoint, is that of a service over HTTP."""
    return url.startswith(("http://", "https://"))


def _check_pair(trust: Trust) -> None:
    if trust.half is not None:
        given, missing = trust.half
        field = trust.named(missing)
        raise OpsError("invalid_request", f"{field} is required with {trust.named(given)}", field=field)


def _http_base(url: str, origin: str) -> str:
    """The URL without one slash at its end (contract D.5)."""
    from urllib.parse import urlsplit

    # Looked for before anything else: what follows would show the address.
    if "@" in url.split("/", 3)[2]:
        raise OpsError(
            "invalid_request",
            f"{origin} takes no name and password; the token has a place of its own",
            field=origin,
        )
    try:
        parts = urlsplit(url)
        # A port that is none raises, too.
        plain = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        plain = False
    else:
        plain = plain and not (parts.query or parts.fragment or url.endswith(("?", "#")))
        plain = plain and url.isascii() and url.isprintable() and not set(url) & set(' "<>\\^`{|}')
    if not plain:
        raise OpsError(
            "invalid_request",
            f"{origin} must be an http:// or https:// address without query, not {url!r}",
            field=origin,
        )
    return url.removesuffix("/")
