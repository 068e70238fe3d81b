"""Server reflection under both of its names: new clients ask for v1, older ones for v1alpha.

The library serves v1alpha only. Both versions have the same messages byte for byte, so that the same
servicer answers for both.
"""

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1ALPHA_NAME = reflection.SERVICE_NAME
V1_NAME = "grpc.reflection.v1.ServerReflection"


def add_reflection(names: Iterable[str], server: grpc.aio.Server) -> None:
    """Serve descriptions of the services `names`, and of reflection itself."""
    servicer = reflection.aio.ReflectionServicer((*names, V1_NAME, V1ALPHA_NAME))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (V1_NAME, V1ALPHA_NAME):
        methods = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
