"""The bare servers that the agent is compared with: `python -m bench.servers echo | stream FILE | health`.

They do what any grpc.aio server of this machine must do, and nothing else: no token, no files, no
building of messages. So they mark the ceiling.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from spritemesh import jsontext

SERVICE = "bench.Bare"
ECHO = f"/{SERVICE}/Echo"
STREAM = f"/{SERVICE}/Stream"
_LENGTH_BYTES = 4


def pack(message: bytes) -> bytes:
    """A message as it stands in the file of `stream`: its length, then itself."""
    return len(message).to_bytes(_LENGTH_BYTES, "big") + message


def unpack(data: bytes) -> list[bytes]:
    """The messages of such a file."""
    found = []
    position = 0
    while position < len(data):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "big")
        found.append(data[start:position])
    return found


async def _echo(request: StringValue, _context: Any) -> StringValue:
    return StringValue(value=request.value)


def _stream_of(messages: list[bytes]) -> Any:
    async def stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    return stream


async def _serve(messages: list[bytes], *, health: bool) -> None:
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(
            _echo,
            request_deserializer=StringValue.FromString,
            response_serializer=StringValue.SerializeToString,
        ),
        # No serializer: the bytes go out as they are.
        "Stream": grpc.unary_stream_rpc_method_handler(_stream_of(messages)),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if health:
        health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(jsontext.encode({"ready": True, "grpc": f"127.0.0.1:{port}"}).decode() + "\n")
    sys.stdout.flush()
    await server.wait_for_termination()


def main() -> None:
    messages: list[bytes] = []
    if sys.argv[1] == "stream":
        with open(sys.argv[2], "rb") as file:
            messages = unpack(file.read())
    asyncio.run(_serve(messages, health=sys.argv[1] == "health"))


if __name__ == "__main__":
    main()
