"""Trace ids on their way out of the manager, as any peer sees them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from manager.transport import Retry, open_transport
from spritemesh.errors import OpsError
from spritemesh.ids import new_trace_id
from spritemesh.traceparent import hex_form, trace_id_of


class Peer(grpc.ServerInterceptor):
    """A server that keeps the metadata of each call, and knows no method."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self._server = grpc.server(ThreadPoolExecutor(1), interceptors=[self])
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def intercept_service(self, continuation: Callable[[Any], Any], call: Any) -> Any:
        self.seen.append(dict(call.invocation_metadata))
        return continuation(call)

    def close(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def peer() -> Iterator[Peer]:
    found = Peer()
    yield found
    found.close()


def asked(peer: Peer, trace_id: str | None) -> dict[str, str]:
    """The metadata of a call under this trace id."""
    transport = open_transport("sprite_service", repo="/", base_url=peer.url, retry=Retry(attempts=1))
    try:
        with pytest.raises(OpsError):
            transport.snapshot("alpha", trace_id=trace_id)
    finally:
        transport.close()
    return peer.seen[-1]


def test_uuid_is_forwarded_as_it_is_and_as_traceparent(peer: Peer) -> None:
    trace_id = new_trace_id()
    seen = asked(peer, trace_id)
    assert seen["x-trace-id"] == trace_id
    assert trace_id_of(seen["traceparent"]) == hex_form(trace_id)


def test_id_that_w3c_does_not_know_is_forwarded_without_a_traceparent(peer: Peer) -> None:
    seen = asked(peer, "fleet-1-alpha")
    assert seen["x-trace-id"] == "fleet-1-alpha"
    assert "traceparent" not in seen


@pytest.mark.parametrize("trace_id", [None, "é"])
def test_id_that_no_header_can_hold_is_not_forwarded(peer: Peer, trace_id: str | None) -> None:
    assert not {"x-trace-id", "traceparent"} & set(asked(peer, trace_id))
