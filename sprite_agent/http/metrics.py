"""Prometheus metrics at an address: who may scrape, and the answer (docs/metrics.md)."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sprite_agent.admission import Admission, Right
from sprite_agent.http.answers import error_answer
from sprite_agent.http.calls import Call
from sprite_agent.http.entry import head_refusal, origin_refusal
from sprite_agent.http.listener import Listener
from sprite_agent.security import Address
from spritemesh.errors import OpsError
from spritemesh.ids import printable

if TYPE_CHECKING:
    from sprite_agent.certificates import Certificates

_log = logging.getLogger("sprite_agent")
_PATHS = ("/metrics", "/")
_METHODS = ("GET", "HEAD")


class Source(Protocol):
    """Where metrics come from."""

    def snapshot(self) -> Collector:
        """What is to be exposed, as it is now. Called in the event loop and quick; what it returns is
        collected in a thread, once."""


class MetricsServer:
    """Serves the metrics of `source` from `start` to `stop`. address: as asked for, with the real port.
    certificates None: without TLS.

    Raises OpsError `address_unavailable` when it is made.
    """

    def __init__(
        self,
        source: Source,
        address: Address,
        admission: Admission,
        certificates: "Certificates | None" = None,
    ) -> None:
        scrapes = _Scrapes(source, admission)
        self._listener = Listener(
            scrapes, address, admission.limits, field="--metrics", certificates=certificates
        )
        self.address = self._listener.address

    async def start(self) -> str:
        """Return the address when scrapes are taken."""
        await self._listener.start()
        return self.address

    async def stop(self) -> None:
        """Take no more scrapes. A second call changes nothing."""
        await self._listener.stop()


class _Scrapes:
    """The ASGI application."""

    def __init__(self, source: Source, admission: Admission) -> None:
        self._source = source
        self._admission = admission
        # Several at once would take the processor from what is measured.
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = Call(Request(scope, receive), self._admission.limits)
        is_framed = True
        try:
            refusal = head_refusal(call, self._admission.limits.metadata_bytes)
            is_framed = refusal is None
            answer = await self._answer(call) if refusal is None else error_answer(refusal)
        except OpsError as error:
            answer = error_answer(error)
            if error.reason == "unsupported_method":
                answer.headers["allow"] = ", ".join(_METHODS)
        if not is_framed or not await call.discard_rest():
            answer.headers["connection"] = "close"  # where its next request begins is not sure
        await answer(scope, receive, send)

    async def _answer(self, call: Call) -> Response:
        refusal = origin_refusal(call, self._admission)
        if refusal is not None:
            raise refusal
        call.let_in(self._admission.enter(call.arrival(Right.READ)))
        if call.path not in _PATHS:
            raise OpsError("unknown_path", f"there is no {printable(call.path)}; metrics are at /metrics")
        if call.method not in _METHODS:
            raise OpsError("unsupported_method", f"method {printable(call.method)} is not served")
        encode, content_type = _encoder(",".join(call.values("accept")))
        async with self._turn:
            try:
                body = await asyncio.to_thread(encode, self._source.snapshot())
            except Exception as error:
                _log.error("agent_fault: metrics were not collected", exc_info=error)
                # The text of a defect may hold anything: it stays in the log.
                raise OpsError("agent_fault", "metrics met a defect; the log says more") from error
        return Response(body, headers={"content-type": content_type})


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The exposition that a scraper asked for, and its content type; the plain one for what is no wish."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        return choose_encoder("")
