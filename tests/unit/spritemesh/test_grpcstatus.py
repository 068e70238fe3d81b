"""Errors travel as rich statuses and come back whole."""

from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from spritemesh.errors import OpsError
from spritemesh.grpcstatus import DETAILS_KEY, error_from_status, status_code, status_details, status_message
from spritemesh.reasons import REASONS, Fault

PEER = "127.0.0.1:7"


def sent(error: OpsError) -> OpsError:
    """What a client makes of `error`."""
    trailing = (("x-other", "1"), (DETAILS_KEY, status_details(error)))
    return error_from_status(status_code(error), "on the wire", trailing, peer=PEER)


@pytest.mark.parametrize("code", REASONS)
@pytest.mark.parametrize("retry_after", [None, 0, 2.5, 3600])
def test_error_of_every_reason_comes_back(code: str, retry_after: float | None) -> None:
    error = OpsError(code, f"why é {code}", field="loop_id", retry_after=retry_after)
    back = sent(error)
    assert (back.reason, back.message, back.retry_after) == (code, f"why é {code}", retry_after)
    # BadRequest is for faults of the request, and only there stands a field.
    assert back.field == ("loop_id" if error.row.fault is Fault.REQUEST else "")


def test_status_number_and_error_info_are_what_other_clients_read() -> None:
    error = OpsError("invalid_loop_id", "no", field="loop_id", retry_after=1.25)
    status = status_pb2.Status.FromString(status_details(error))
    assert (status.code, status.message) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "no")
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    assert [detail.Unpack(part) for detail, part in zip(status.details, (info, bad, retry), strict=True)]
    assert (info.reason, info.domain) == ("invalid_loop_id", "superloop.ops")
    assert [(violation.field, violation.description) for violation in bad.field_violations] == [
        ("loop_id", "no")
    ]
    assert retry.retry_delay.ToMilliseconds() == 1250


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_status_of_somebody_else_gives_the_nearest_reason(code: grpc.StatusCode) -> None:
    error = error_from_status(code, "sorry", (), peer=PEER)
    assert error.reason in REASONS
    assert error.message == f"{PEER}: {code.name}: sorry"
    nearest = {
        "UNAVAILABLE": "agent_unreachable",
        "DEADLINE_EXCEEDED": "deadline_exceeded",
        "UNAUTHENTICATED": "token_wrong",
        "PERMISSION_DENIED": "token_wrong",
        "UNIMPLEMENTED": "unsupported_method",
        "RESOURCE_EXHAUSTED": "message_too_large",
    }
    assert error.reason == nearest.get(code.name, "service_request_failed")


def test_status_text_of_a_hostile_peer_holds_no_control_sequence() -> None:
    error = error_from_status(grpc.StatusCode.INTERNAL, "\x1b[2Jgone \x9b31m", (), peer=PEER)
    assert error.message == f"{PEER}: INTERNAL: \\x1b[2Jgone \\x9b31m"
    rich = status_pb2.Status(message="\x1b]0;title\x07")
    rich.details.add().Pack(error_details_pb2.ErrorInfo(reason="agent_fault", domain="superloop.ops"))
    trailing = ((DETAILS_KEY, rich.SerializeToString()),)
    error = error_from_status(grpc.StatusCode.INTERNAL, "", trailing, peer=PEER)
    assert error.message == "\\x1b]0;title\\x07"


def test_full_agent_and_large_message_are_told_apart() -> None:
    full = sent(OpsError("too_many_streams", "full", retry_after=5))
    assert (full.reason, full.retry_after) == ("too_many_streams", 5)
    large = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max", (), peer=PEER)
    assert large.reason == "message_too_large"
    told = "received metadata size exceeds hard limit (100000 vs. 49152)"
    large = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, told, (), peer=PEER)
    assert large.reason == "metadata_too_large"


def _details(info: error_details_pb2.ErrorInfo) -> bytes:
    packed = AnyMessage()
    packed.Pack(info)
    return status_pb2.Status(code=3, message="theirs", details=[packed]).SerializeToString()


@pytest.mark.parametrize(
    "details",
    [
        b"",
        b"\xff\xff\xff",
        status_pb2.Status(code=3).SerializeToString(),
        _details(error_details_pb2.ErrorInfo(reason="invalid_loop_id", domain="example.com")),
        _details(error_details_pb2.ErrorInfo(reason="of_a_newer_agent", domain="superloop.ops")),
        status_pb2.Status(
            details=[AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")]
        ).SerializeToString(),
        "text",
    ],
    ids=["empty", "no-message", "no-details", "other-domain", "unknown-reason", "broken-detail", "text"],
)
def test_details_that_are_not_ours_are_passed_over(details: Any) -> None:
    error = error_from_status(grpc.StatusCode.NOT_FOUND, "sorry", ((DETAILS_KEY, details),), peer=PEER)
    assert (error.reason, error.message) == ("service_request_failed", f"{PEER}: NOT_FOUND: sorry")


def test_detail_of_an_unknown_type_beside_ours_is_passed_over() -> None:
    status = status_pb2.Status.FromString(status_details(OpsError("loop_not_found", "no")))
    status.details.add(type_url="type.googleapis.com/example.Later", value=b"\xff")
    trailing = ((DETAILS_KEY, status.SerializeToString()),)
    assert error_from_status(grpc.StatusCode.NOT_FOUND, "", trailing, peer=PEER).reason == "loop_not_found"


@pytest.mark.parametrize("message", ["x" * 30_000, "é" * 30_000, "😀" * 30_000, "\udcff" * 30_000])
async def test_error_with_a_long_message_arrives_over_a_real_connection(message: str) -> None:
    """gRPC drops a status whose trailers are too large, and then the caller sees another error."""
    error = OpsError("invalid_loop_id", message, field="loop_id")

    async def refuse(request: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        await context.abort(
            status_code(error),
            status_message(error),
            trailing_metadata=((DETAILS_KEY, status_details(error)),),
        )

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Do": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Test/Do")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=10)
    finally:
        await server.stop(0)
    failure = caught.value
    trailing: Any = failure.trailing_metadata()
    back = error_from_status(failure.code(), failure.details() or "", trailing, peer=PEER)
    assert (back.reason, back.field) == ("invalid_loop_id", "loop_id")
    assert len(back.message) > 200
    assert error.message.startswith(back.message)
