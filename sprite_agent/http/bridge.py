"""The ASGI application: token, drain, routes, and errors that become answers (contract D)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sprite_agent.counts import CANCELLED, OK, UNKNOWN, Counts
from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain, Room
from sprite_agent.gate import DRAIN_RETRY_SECONDS
from sprite_agent.http.answers import CONTENT_TYPE, error_answer, json_answer
from sprite_agent.http.calls import Call
from sprite_agent.http.control import ControlRoute
from sprite_agent.http.entry import head_refusal, origin_refusal
from sprite_agent.http.events import EventDocument, SpooledAnswer
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import TokenCheck
from spritemesh import __version__, jsontext
from spritemesh.bridge import snapshot_to_json
from spritemesh.errors import OpsError
from spritemesh.ids import printable, validate_loop_id
from spritemesh.names import AGENT_HEADER

_log = logging.getLogger("sprite_agent")
_CONTROL_PATH = "/ops/control"
# Documents of events at the same time: each may take the space of a log on the disk.
_MAX_DOCUMENTS = 16
_METHODS = ("GET", "HEAD", "POST")

_T = TypeVar("_T")


class Bridge:
    """Serves one repository over HTTP. Every path needs the token, those included that do not exist."""

    def __init__(
        self,
        repository: Repository,
        tokens: TokenCheck,
        drain: Drain,
        pool: ThreadPoolExecutor,
        desk: ControlDesk,
        counts: Counts | None = None,
    ) -> None:
        """counts: where ends of calls are counted."""
        self._repository = repository
        self._counts = counts or Counts()
        self._tokens = tokens
        self._drain = drain
        self._pool = pool
        self._control = ControlRoute(repository.path, desk, self._run)
        self._documents = Room(_MAX_DOCUMENTS, "documents of events")
        self._routes: dict[tuple[str, str], Callable[[Call], Awaitable[Response]]] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/ops/snapshot"): self._snapshot,
            ("GET", "/ops/events"): self._events,
            ("POST", _CONTROL_PATH): self._control.answer,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A client that goes away ends nothing that was begun for it."""
        call = Call(Request(scope, receive))
        reason = OK
        try:
            refusal = head_refusal(call)
            if refusal is not None:
                reason = refusal.reason
                answer = error_answer(refusal)
                answer.headers["connection"] = "close"  # where its next request begins is not sure
                await self._send(call, answer, scope, receive, send)
                return
            refusal = self._refusal(call)
            if refusal is not None:
                reason = refusal.reason
                await self._send(call, error_answer(refusal), scope, receive, send)
                return
            with ExitStack() as held:
                try:
                    if call.path != _CONTROL_PATH:  # those are counted at the desk
                        held.enter_context(self._drain.stream())
                    answer = await self._answer(call)
                except OpsError as error:
                    reason = error.reason
                    answer = error_answer(error, control=call.path == _CONTROL_PATH)
                await self._send(call, answer, scope, receive, send)
        except (ClientDisconnect, asyncio.CancelledError) as error:
            reason = CANCELLED
            if not isinstance(error, ClientDisconnect):
                raise
        except Exception:
            reason = "agent_fault"
            raise
        finally:
            self._counts.call_ended("http", self._label(call), reason)

    async def _answer(self, call: Call) -> Response:
        try:
            return await self._routed(call)
        except (OpsError, ClientDisconnect):
            raise
        except Exception as error:
            _log.exception("agent_fault at %s", printable(call.path))
            # The text of a defect may hold anything: it stays in the log.
            raise OpsError("agent_fault", "the agent met a defect; its log says more") from error

    async def _routed(self, call: Call) -> Response:
        if call.method not in _METHODS:
            raise OpsError("unsupported_method", f"method {printable(call.method)} is not served")
        method = "GET" if call.method == "HEAD" else call.method
        route = self._routes.get((method, call.path))
        if route is None:
            raise OpsError("unknown_path", f"there is no {call.method} {printable(call.path)}")
        return await route(call)

    def _label(self, call: Call) -> str:
        """Of a call in counts."""
        method = "GET" if call.method == "HEAD" else call.method
        return f"{method} {call.path}" if (method, call.path) in self._routes else UNKNOWN

    @staticmethod
    async def _send(call: Call, answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
        answer.headers[AGENT_HEADER] = __version__
        if not await call.discard_rest():
            answer.headers["connection"] = "close"
        try:
            await answer(scope, receive, send)
        except Exception:
            _log.exception("agent_fault while %s was answered", printable(call.path))
            raise  # the connection is closed, so that half an answer is not taken for a whole one

    def _refusal(self, call: Call) -> OpsError | None:
        """Why a call is not let in."""
        refusal = origin_refusal(call) if self._tokens.is_open else self._tokens.refusal(call.headers)
        if refusal is None and self._drain.started:
            return OpsError("agent_draining", "the agent is shutting down", retry_after=DRAIN_RETRY_SECONDS)
        return refusal

    # --- routes -------------------------------------------------------------------------------------

    async def _health(self, _call: Call) -> Response:
        return json_answer({"ok": True})

    async def _snapshot(self, call: Call) -> Response:
        reader, trace_id = self._reader(call), call.trace_id()

        def read() -> bytes:
            return jsontext.encode_ascii(snapshot_to_json(reader.snapshot(trace_id=trace_id)))

        return Response(await self._run(read), headers={"content-type": CONTENT_TYPE})

    async def _events(self, call: Call) -> Response:
        reader = self._reader(call)
        start, max_events = call.number("cursor"), call.number("maxEvents")
        trace_id = call.trace_id()
        # Later, it could find the client gone, and what is held below without an owner.
        await call.discard_rest()
        with ExitStack() as held:
            held.enter_context(self._documents.entered())
            document = EventDocument(reader, start=start, max_events=max_events, trace_id=trace_id)
            held.callback(self._pool.submit, document.close)  # to give a large file back takes a while
            await self._run(document.open)
            # A step a thread, so that others have their turn in the pool.
            while await self._run(document.step):
                await call.check_connected()
            file, length = await self._run(document.finish)
            return SpooledAnswer(file, length, self._run, held.pop_all())

    def _reader(self, call: Call) -> LoopReader:
        loop_id = call.parameter("loopId")
        if not loop_id:
            raise OpsError("invalid_request", "loopId is required", field="loopId")
        return self._repository.loop(validate_loop_id(loop_id, field="loopId"))

    async def _run(self, work: Callable[[], _T], /) -> _T:
        """Do blocking work in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
