"""What a user would take for logs instead: `python -m bench.otlp receive | send TARGET FILE`.

OpenTelemetry's Python SDK reads a file, lifts time and name of each line as the agent does, and sends records
in batches over OTLP/gRPC to a receiver that counts them. It is made lossless: a flush comes before the queue
of the batch processor, 2,048 records by default, would drop one.
"""

import asyncio
import sys
import time
from datetime import datetime
from typing import Any

import grpc
import msgspec
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

from bench.receiver import tell

COUNTED = "/bench.Otlp/Counted"
_QUEUE = 2048
_LARGEST_MESSAGE = 16 * 1024 * 1024


class _Header(msgspec.Struct):
    """What is lifted out of a line."""

    timestamp: datetime
    event: str


class _Receiver(logs_service_pb2_grpc.LogsServiceServicer):
    """Counts records."""

    def __init__(self) -> None:
        self._count = 0

    async def Export(
        self, request: logs_service_pb2.ExportLogsServiceRequest, _context: Any
    ) -> logs_service_pb2.ExportLogsServiceResponse:
        self._count += sum(
            len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs
        )
        return logs_service_pb2.ExportLogsServiceResponse()

    async def counted(self, _request: StringValue, _context: Any) -> StringValue:
        """So many, and from now on from 0 again."""
        count, self._count = self._count, 0
        return StringValue(value=str(count))


async def _receive() -> None:
    options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _LARGEST_MESSAGE))
    server = grpc.aio.server(options=options)
    receiver = _Receiver()
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    handler = grpc.unary_unary_rpc_method_handler(
        receiver.counted,
        request_deserializer=StringValue.FromString,
        response_serializer=StringValue.SerializeToString,
    )
    _, name, method = COUNTED.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tell({"ready": True, "grpc": f"127.0.0.1:{port}"})
    await server.wait_for_termination()


def _send(target: str, path: str) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    processor = BatchLogRecordProcessor(OTLPLogExporter(endpoint=target, insecure=True))
    provider.add_log_record_processor(processor)
    logger = provider.get_logger("bench")
    decode = msgspec.json.Decoder(_Header).decode
    began = time.perf_counter()
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            header = decode(line)
            logger.emit(
                timestamp=int(header.timestamp.timestamp()) * 1_000_000_000,
                event_name=header.event,
                body=line[:-1].decode(),
                attributes={"line": number},
            )
            if not number % _QUEUE:
                processor.force_flush()
    processor.force_flush()
    seconds = time.perf_counter() - began
    with grpc.insecure_channel(target) as channel:
        ask = channel.unary_unary(
            COUNTED,
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )
        tell({"seconds": seconds, "count": int(ask(StringValue(), timeout=30).value)})
    provider.shutdown()


def main() -> None:
    if sys.argv[1] == "receive":
        asyncio.run(_receive())
    else:
        _send(sys.argv[2], sys.argv[3])


if __name__ == "__main__":
    main()
