"""Unary calls that set no deadline get one, by a server in this process with little patience."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprite_agent import deadlines
from sprite_agent.admission import Admission
from sprite_agent.control import ControlPlane
from sprite_agent.counts import CANCELLED, Counts, EndedCall
from sprite_agent.deadlines import Deadlines
from sprite_agent.desk import ControlDesk
from sprite_agent.gate import Gate
from sprite_agent.limits import Limits
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import TokenCheck
from sprite_agent.services.control import ControlService
from sprite_agent.services.health import DrainingHealthServicer
from spritemesh.control import Confirmation, to_message
from superloop.ops.v1 import control_pb2 as pb
from superloop.ops.v1 import control_pb2_grpc
from tests.harness.agents import CALL_SECONDS
from tests.harness.control import SKIP, Runtime, request
from tests.harness.loops import LoopFiles, Repo
from tests.harness.refusals import Refusal, taken_apart

METHOD = "test.Service/Wait"
Handler = Callable[[Any, Any], Awaitable[bytes]]


@asynccontextmanager
async def serving(
    limits: Limits, counts: Counts, add: Callable[[grpc.aio.Server], None], command_seconds: float = 60.0
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server."""
    gate = Gate(Admission(TokenCheck(""), limits), lambda: False, counts, command_seconds=command_seconds)
    server = grpc.aio.server(interceptors=(gate,))
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


def unary(handler: Handler) -> Callable[[grpc.aio.Server], None]:
    """Adds a method."""
    service, _, method = METHOD.partition("/")
    methods: Any = {method: grpc.unary_unary_rpc_method_handler(handler)}
    return lambda server: server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, methods),)
    )


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return taken_apart(caught.value)


async def test_a_call_without_a_deadline_gets_one_and_its_handler_ends() -> None:
    ended = asyncio.Event()

    async def stuck(_request: Any, _context: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    counts = Counts()
    async with serving(Limits(unary_seconds=0.05), counts, unary(stuck)) as channel:
        call: Any = channel.unary_unary(f"/{METHOD}")
        found = await refused(call(b""))
    assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
    assert "0.05 s" in found.message
    assert ended.is_set()
    assert counts.calls == {EndedCall("grpc", METHOD, "deadline_exceeded"): 1}


async def test_a_callers_own_deadline_stands() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(data: Any, _context: Any) -> bytes:
        began.set()
        try:
            await asyncio.sleep(0.1 if data == b"short" else CALL_SECONDS)
        finally:
            ended.set()
        return b"done"

    counts = Counts()
    async with serving(Limits(unary_seconds=0.02), counts, unary(slow)) as channel:
        call: Any = channel.unary_unary(f"/{METHOD}")
        assert await call(b"short", timeout=CALL_SECONDS) == b"done"
        ended.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"long", timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(CALL_SECONDS):  # gRPC has told the handler
            await ended.wait()
    assert counts.calls[EndedCall("grpc", METHOD, CANCELLED)] == 1


async def test_a_timeout_within_a_handler_is_a_defect_and_no_deadline() -> None:
    async def faulty(_request: Any, _context: Any) -> bytes:
        raise TimeoutError

    async with serving(Limits(), Counts(), unary(faulty)) as channel:
        call: Any = channel.unary_unary(f"/{METHOD}")
        assert (await refused(call(b""))).reason == "agent_fault"


async def anyone(waiting: set[Any]) -> Any:
    """The next of some calls that ends, taken out of them."""
    ended = asyncio.Event()
    for call in waiting:
        call.add_done_callback(lambda _: ended.set())
    while not (done := [call for call in waiting if call.done()]):
        await ended.wait()
    waiting.discard(done[0])
    return done[0]


async def test_requests_of_strangers_are_waited_for_only_so_many_at_a_time() -> None:
    """Of each that is waited for gRPC may hold a message."""

    def add(server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(DrainingHealthServicer(asyncio.Event()), server)

    async with serving(Limits(request_seconds=3600), Counts(), add) as channel, asyncio.timeout(CALL_SECONDS):
        ask: Any = channel.stream_unary("/grpc.health.v1.Health/Check")
        silent = [ask() for _ in range(70)]
        waiting = set(silent)
        for _ in range(6):  # who waits longest gives way
            found = await refused(await anyone(waiting))
            assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
        assert not any(call.done() for call in waiting)
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.List(health_pb2.HealthListRequest())  # type: ignore[attr-defined]
        for call in silent:
            call.cancel()


async def test_control_that_takes_too_long_goes_on_and_can_be_asked_for(
    repo: Repo, loop: LoopFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "_CONTROL_MARGIN_SECONDS", 0.05)
    runtime = Runtime(tmp_path / "program")
    runtime.does(f"while ! test -e {runtime.file('go')}; do sleep 0.01; done")
    repository = Repository(str(repo.root))
    desk = ControlDesk(ControlPlane(repository, runtime=str(runtime.path)))

    def add(server: grpc.aio.Server) -> None:
        control_pb2_grpc.add_ControlServiceServicer_to_server(ControlService(desk), server)

    async with serving(Limits(), Counts(), add, command_seconds=0.05) as channel:
        stub: Any = control_pb2_grpc.ControlServiceStub(channel)
        message = to_message(request("cancel", "late-1", "alpha", confirmation=SKIP))
        found = await refused(stub.CancelLoop(message))
        assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
        assert "by its key" in found.message
        runtime.file("go").touch()
        asked = pb.GetInvocationRequest(idempotency_key="late-1")
        async with asyncio.timeout(CALL_SECONDS):
            state = None
            while state != pb.INVOCATION_STATE_FINISHED:
                await asyncio.sleep(0.01)
                state = (await stub.GetInvocation(asked)).state
    assert len(runtime.calls) == 1
    desk.close()
    repository.close()


def test_control_has_the_time_of_its_command_and_of_the_look_for_its_effect() -> None:
    found = Deadlines(request=10, unary=30, command=60)
    assert found.control(Confirmation(skip=True)) == 75
    assert found.control(Confirmation(timeout_seconds=30)) == 105
    assert found.control(Confirmation(timeout_seconds=-1)) == 75
    assert found.control(Confirmation(timeout_seconds=1e12)) < 4000
