"""The rich status of a failed call, taken apart."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from spritemesh.grpcstatus import DETAILS_KEY

_T = TypeVar("_T", bound=Message)


class Refusal(NamedTuple):
    """field: of the one BadRequest violation, "" without. retry_seconds: of RetryInfo, None without."""

    code: grpc.StatusCode
    message: str
    domain: str
    reason: str
    field: str
    retry_seconds: float | None


def refusal(call: Callable[[], object]) -> Refusal:
    """Make a call that must fail with a rich status."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return taken_apart(caught.value)


def taken_apart(error: grpc.RpcError) -> Refusal:
    """The status of an error; it must be rich, and say the same in both places."""
    trailing = trailing_metadata(error)
    status = status_pb2.Status.FromString(trailing[DETAILS_KEY])
    code: grpc.StatusCode = error.code()
    assert status.code == code.value[0]
    assert status.message == error.details()
    info = _detail(status, error_details_pb2.ErrorInfo())
    bad = _detail(status, error_details_pb2.BadRequest())
    retry = _detail(status, error_details_pb2.RetryInfo())
    assert info is not None
    return Refusal(
        code,
        status.message,
        info.domain,
        info.reason,
        bad.field_violations[0].field if bad is not None else "",
        retry.retry_delay.ToMilliseconds() / 1000 if retry is not None else None,
    )


def trailing_metadata(error: grpc.RpcError) -> dict[str, bytes]:
    """The binary headers that an error came with."""
    pairs: Any = error.trailing_metadata() or ()
    return dict(pairs)


def _detail(status: status_pb2.Status, target: _T) -> _T | None:
    descriptor: Any = target.DESCRIPTOR
    found = [detail for detail in status.details if detail.Is(descriptor)]
    assert len(found) <= 1
    if not found:
        return None
    found[0].Unpack(target)
    return target
