"""Calls over gRPC with any bytes as their request, and what must be true of every status."""

import re
from collections.abc import Hashable, Iterator

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from spritemesh.grpcstatus import DETAILS_KEY, DOMAIN
from tests.fuzz.checks import check_reason
from tests.fuzz.fixtures import TOKEN
from tests.fuzz.sections import split
from tests.harness.refusals import trailing_metadata

# Of a stream, which may be endless, the beginning is read; the call that runs a command may take longer.
_STREAM_SECONDS = 0.05
_UNARY_SECONDS = 10.0
_STREAM_MESSAGES = 3
# What gRPC lets travel; its own keys are not ours to send.
_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+")
_VALUE = re.compile(rb"[ -~]*")
# Statuses that gRPC itself gives, without our details: our client went away, or sent what gRPC does not take.
_ITS_OWN = frozenset(
    {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
# This one answers NOT_FOUND by its own protocol, for a service that it does not know.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"


class Caller:
    """Makes the calls of inputs to a server. files: of its services.

    An input holds, each after its name: `metadata`, a line for each key and value; then calls, named by their
    full method, with `json` where the request is protobuf's JSON instead of bytes.
    """

    def __init__(self, channel: grpc.Channel, *files: FileDescriptor) -> None:
        self._channel = channel
        self._methods: dict[str, MethodDescriptor] = {
            f"/{service.full_name}/{method.name}": method
            for file in files
            for service in file.services_by_name.values()
            for method in service.methods
        }

    @property
    def methods(self) -> list[str]:
        """Full names, as inputs hold them."""
        return list(self._methods)

    def run(self, data: bytes) -> Iterator[Hashable]:
        """Make the calls of an input; what each ended with."""
        metadata: tuple[tuple[str, str | bytes], ...] = (("x-ops-token", TOKEN),)
        for name, content in split(data)[:8]:
            word, _, form = name.partition(" ")
            if word == "metadata":
                metadata = _metadata(content)
            elif word.startswith("/"):
                yield word if word in self._methods else "unknown", self._call(word, form, content, metadata)

    def _call(
        self, name: str, form: str, content: bytes, metadata: tuple[tuple[str, str | bytes], ...]
    ) -> Hashable:
        method = self._methods.get(name)
        request = _request(method, content) if method is not None and form == "json" else content
        # Without serializers: bytes go out and come in.
        unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(name)
        streaming: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(name)
        try:
            if method is not None and method.server_streaming:
                stream = streaming(request, timeout=_STREAM_SECONDS, metadata=metadata)
                kinds = []
                for _, answer in zip(range(_STREAM_MESSAGES), stream, strict=False):
                    kinds.append(_kind(method, answer))
                stream.cancel()
                return tuple(kinds)
            answer = unary(request, timeout=_UNARY_SECONDS, metadata=metadata)
            return _kind(method, answer) if method is not None else "answered"
        except grpc.RpcError as error:
            return _checked(name, error)
        except (ValueError, TypeError):
            return "not sent"  # metadata that our own client refuses


def _request(method: MethodDescriptor, content: bytes) -> bytes:
    message = GetMessageClass(method.input_type)()
    try:
        json_format.Parse(content, message, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError):
        return content
    return message.SerializeToString()


def _kind(method: MethodDescriptor, answer: bytes) -> Hashable:
    """The members that an answer has; it must be a message of the method."""
    message = GetMessageClass(method.output_type)()
    message.ParseFromString(answer)
    return tuple(field.name for field, _ in message.ListFields())


def _metadata(content: bytes) -> tuple[tuple[str, str | bytes], ...]:
    """Keys and values that gRPC sends; it refuses others before they are on their way."""
    found: list[tuple[str, str | bytes]] = []
    for line in content.split(b"\n")[:50]:
        name, _, value = line.partition(b": ")
        key = name.decode("latin-1").lower()
        if not _KEY.fullmatch(key):
            continue
        if key.endswith("-bin"):
            found.append((key, value))
        elif _VALUE.fullmatch(value):
            found.append((key, value.decode("ascii")))
    return tuple(found)


def _checked(method: str, error: grpc.RpcError) -> Hashable:
    """Status and reason of an error, which must be rich, and of the table."""
    code: grpc.StatusCode = error.code()
    details = trailing_metadata(error).get(DETAILS_KEY)
    told = error.details()
    assert code is not grpc.StatusCode.UNKNOWN, told
    assert "Traceback" not in (told or ""), told
    if not isinstance(details, bytes):
        unknown_service = (method, code) == (_HEALTH_CHECK, grpc.StatusCode.NOT_FOUND)
        assert code in _ITS_OWN or unknown_service, f"{code.name} without details: {told}"
        return code.name
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (code.value[0], told)
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), "no ErrorInfo"
    assert info.domain == DOMAIN
    check_reason(info.reason)
    assert info.reason not in {"agent_fault", "internal_error"}, told
    return code.name, info.reason
