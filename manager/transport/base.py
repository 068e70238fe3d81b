"""What the manager asks of a loop, whoever answers: files here, an agent over gRPC, a v1 service."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from spritemesh.endpoints import check_token, is_port, is_unix_address
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2


class Transport(Protocol):
    """Reads loops. All failures are OpsError.

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

    def close(self) -> None:
        """Release what it holds."""
        ...


class Retry(NamedTuple):
    """How often to try a failed request, and how long to wait between.

    attempts: all tries, the first included. backoff_seconds: before try n + 1, n times this. told: hears
    of each wait that a following stream makes, with its seconds.
    """

    attempts: int = 3
    backoff_seconds: float = 1.0
    told: Callable[[OpsError, float], None] | None = None


class Endpoint(NamedTuple):
    """An agent: `target` as gRPC takes it."""

    target: str
    token: str


def parse_base_url(url: str, token: str) -> Endpoint:
    """grpc://HOST:PORT or unix:///path. Raises OpsError `invalid_request` naming the flag."""
    check_token(token, "--service-token")
    if is_unix_address(url):
        return Endpoint(url, token)
    target = url.removeprefix("grpc://").removesuffix("/")
    host, _, port = target.rpartition(":")
    if not url.startswith("grpc://") or not host or "/" in target or not is_port(port):
        raise OpsError(
            "invalid_request",
            f"--service-base-url must be grpc://HOST:PORT or unix:///path, not {url!r}",
            field="--service-base-url",
        )
    return Endpoint(target, token)
