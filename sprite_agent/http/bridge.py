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

from sprite_agent.admission import Admission, Right
from sprite_agent.counts import CANCELLED, OK, UNKNOWN, Counts
from sprite_agent.deadlines import COMMAND_SECONDS, Deadlines, late
from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain, Room
from sprite_agent.gate import DRAIN_RETRY_SECONDS
from sprite_agent.http.answers import CONTENT_TYPE, error_answer, json_answer
from sprite_agent.http.calls import Call
from sprite_agent.http.control import ControlRoute
from sprite_agent.http.description import description
from sprite_agent.http.entry import head_refusal, origin_refusal
from sprite_agent.http.events import EventDocument, SpooledAnswer
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.repository import Repository
from spritemesh import __version__, jsontext, traced
from spritemesh.bridge import snapshot_to_json
from spritemesh.control import Confirmation
from spritemesh.errors import OpsError
from spritemesh.ids import printable, validate_loop_id
from spritemesh.names import AGENT_HEADER
from spritemesh.signing import CONTROL_PATH, http_loop_id

_log = logging.getLogger("sprite_agent")
_HEALTH_PATH = "/healthz"
# Documents of events at the same time: each may take the space of a log on the disk.
_MAX_DOCUMENTS = 16
_METHODS = ("GET", "HEAD", "POST")

_T = TypeVar("_T")


class Bridge:
    """Serves one repository over HTTP. Every path needs the token, those included that do not exist."""

    # As openapi.json describes them.
    ROUTES = (
        ("GET", "/healthz"),
        ("GET", "/ops/snapshot"),
        ("GET", "/ops/events"),
        ("GET", "/openapi.json"),
        ("POST", CONTROL_PATH),
    )

    def __init__(
        self,
        repository: Repository,
        admission: Admission,
        drain: Drain,
        pool: ThreadPoolExecutor,
        desk: ControlDesk,
        counts: Counts | None = None,
        *,
        command_seconds: float = COMMAND_SECONDS,
    ) -> None:
        """counts: where ends of calls are counted. command_seconds: what a runtime command may take."""
        limits = admission.limits
        self._deadlines = Deadlines(limits.request_seconds, limits.unary_seconds, command_seconds)
        self._repository = repository
        self._counts = counts or Counts()
        self._admission = admission
        self._drain = drain
        self._pool = pool
        self._control = ControlRoute(repository.path, desk, self._run)
        self._documents = Room(_MAX_DOCUMENTS, "documents of events")
        handlers = (self._health, self._snapshot, self._events, self._describe, self._control.answer)
        self._routes: dict[tuple[str, str], Callable[[Call], Awaitable[Response]]] = dict(
            zip(self.ROUTES, handlers, strict=True)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A client that goes away ends nothing that was begun for it."""
        call = Call(Request(scope, receive), self._admission.limits)
        reason = OK
        try:
            refusal = head_refusal(call, self._admission.limits.metadata_bytes)
            if refusal is not None:
                reason = refusal.reason
                answer = error_answer(refusal)
                answer.headers["connection"] = "close"  # where its next request begins is not sure
                await self._send(call, answer, scope, receive, send)
                return
            try:
                await self._admit(call)
            except OpsError as error:
                reason = error.reason
                await self._send(call, error_answer(error), scope, receive, send)
                return
            with ExitStack() as held:
                try:
                    if call.path != CONTROL_PATH:  # those are counted at the desk
                        held.enter_context(self._drain.stream())
                    answer = await self._answer(call)
                except OpsError as error:
                    reason = error.reason
                    answer = error_answer(error, control=call.path == CONTROL_PATH)
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
            with self._step(call):
                return await self._routed(call)
        except (OpsError, ClientDisconnect):
            raise
        except Exception as error:
            _log.exception("agent_fault at %s", printable(call.path))
            # The text of a defect may hold anything: it stays in the log.
            raise OpsError("agent_fault", "the agent met a defect; its log says more") from error

    def _step(self, call: Call) -> traced.Step:
        """A call that was let in, in traces; probes are none."""
        if call.path == _HEALTH_PATH:
            return traced.OFF
        return traced.request("rpc", "bridge.py", self._label(call), call.headers, edge="http")

    async def _routed(self, call: Call) -> Response:
        if call.method not in _METHODS:
            raise OpsError("unsupported_method", f"method {printable(call.method)} is not served")
        method = "GET" if call.method == "HEAD" else call.method
        route = self._routes.get((method, call.path))
        if route is None:
            raise OpsError("unknown_path", f"there is no {call.method} {printable(call.path)}")
        if route == self._events:
            return await route(call)  # sees to it itself, between its steps
        is_control = call.path == CONTROL_PATH
        seconds = self._deadlines.control(Confirmation()) if is_control else self._deadlines.unary
        patience = asyncio.timeout(seconds)
        try:
            async with patience:
                return await route(call)
        except TimeoutError:
            if patience.expired():
                raise late(seconds, control=is_control) from None
            raise

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

    async def _admit(self, call: Call) -> None:
        """Let a call in, and note who connected. Raises OpsError for who may not come in."""
        refusal = origin_refusal(call, self._admission)
        if refusal is not None:
            raise refusal
        is_control = (call.method, call.path) == ("POST", CONTROL_PATH)
        arrival = call.arrival(Right.CONTROL if is_control else Right.READ)
        provenance = self._admission.enter(arrival)
        body, loop_id = b"", ""
        if call.path == _HEALTH_PATH:
            arrival = arrival._replace(right=Right.PUBLIC)  # from here on: probes cannot sign
        elif self._admission.expect_body(arrival):
            body = await call.body()
            loop_id = http_loop_id(call.path, call.query, body)
        call.let_in(self._admission.verify(arrival, provenance, loop_id=loop_id, body=body))
        if self._drain.started:
            raise OpsError("agent_draining", "the agent is shutting down", retry_after=DRAIN_RETRY_SECONDS)

    # --- routes -------------------------------------------------------------------------------------

    async def _health(self, _call: Call) -> Response:
        return json_answer({"ok": True})

    async def _describe(self, _call: Call) -> Response:
        return json_answer(await self._run(description))

    async def _snapshot(self, call: Call) -> Response:
        reader, trace_id = self._reader(call), call.trace_id()

        def read() -> bytes:
            return jsontext.encode_ascii(snapshot_to_json(reader.snapshot(trace_id=trace_id)))

        return Response(await self._run(read), headers={"content-type": CONTENT_TYPE})

    async def _events(self, call: Call) -> Response:
        reader = self._reader(call)
        start, max_events = call.number("cursor"), call.number("maxEvents")
        trace_id = call.trace_id()
        due = asyncio.get_running_loop().time() + self._deadlines.document
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
                if asyncio.get_running_loop().time() > due:
                    raise late(self._deadlines.document)
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
