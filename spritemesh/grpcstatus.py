"""An error of ours as a rich gRPC status, and back (AIP-193).

The status travels as google.rpc.Status in the trailing metadata. ErrorInfo.reason is the code of the
one table, in its one spelling: what an operator reads there is what the runbook lists.
"""

from collections.abc import Iterable

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from spritemesh.errors import OpsError
from spritemesh.reasons import REASONS, Fault

DOMAIN = "superloop.ops"
DETAILS_KEY = "grpc-status-details-bin"
# gRPC refuses trailers over 8 KiB, and with them the error; the text stands in them up to three times.
_MESSAGE_BYTES = 1024


def status_code(error: OpsError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    return grpc.StatusCode[error.grpc_status]


def status_message(error: OpsError) -> str:
    """The message of an error as it fits into a status: cut after 1 KiB."""
    return error.message.encode()[:_MESSAGE_BYTES].decode("utf-8", "ignore")


def status_details(error: OpsError) -> bytes:
    """google.rpc.Status with ErrorInfo, and BadRequest or RetryInfo where they apply, as bytes."""
    message = status_message(error)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.field and error.row.fault is Fault.REQUEST:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = Duration(seconds=int(error.retry_after), nanos=int(error.retry_after % 1 * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        any_detail = Any()
        any_detail.Pack(detail)
        packed.append(any_detail)
    number: int = status_code(error).value[0]
    return status_pb2.Status(code=number, message=message, details=packed).SerializeToString()


def error_from_status(
    code: grpc.StatusCode, message: str, trailing: Iterable[tuple[str, str | bytes]], *, peer: str
) -> OpsError:
    """The error that a status stands for; for one that is not ours, the nearest reason.

    peer: the address, for the message. RESOURCE_EXHAUSTED without our ErrorInfo is a fault of the request:
    gRPC gives it for messages and metadata that are too large, and only its text tells which.
    """
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            error = _from_details(value, message)
            if error is not None:
                return error
    reason = {
        grpc.StatusCode.UNAVAILABLE: "agent_unreachable",
        grpc.StatusCode.DEADLINE_EXCEEDED: "deadline_exceeded",
        grpc.StatusCode.UNAUTHENTICATED: "token_wrong",
        grpc.StatusCode.PERMISSION_DENIED: "token_wrong",
        grpc.StatusCode.UNIMPLEMENTED: "unsupported_method",
        grpc.StatusCode.RESOURCE_EXHAUSTED: "message_too_large",
    }.get(code, "service_request_failed")
    if reason == "message_too_large" and "metadata" in message:
        reason = "metadata_too_large"
    return OpsError(reason, f"{peer}: {code.name}: {message}")


def _from_details(data: bytes, message: str) -> OpsError | None:
    try:
        status = status_pb2.Status.FromString(data)
        info, bad_request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        for detail in status.details:
            for target in (info, bad_request, retry):
                detail.Unpack(target)  # leaves a target of another type as it is
    except DecodeError:
        return None
    if info.domain != DOMAIN or info.reason not in REASONS:
        return None
    fields = bad_request.field_violations
    return OpsError(
        info.reason,
        status.message or message,
        field=fields[0].field if fields else "",
        retry_after=retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
    )
