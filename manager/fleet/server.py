"""What a running manager serves over gRPC: its fleet, health and reflection."""

from concurrent.futures import ThreadPoolExecutor

from manager.fleet.board import Board
from manager.services.fleet import SPEAKER, FleetService
from manager.transport.channel import grpc
from sprite_agent.drain import Drain
from sprite_agent.gate import Gate
from sprite_agent.listening import SERVER_OPTIONS, listen
from sprite_agent.security import Address, TokenCheck
from sprite_agent.services.health import DrainingHealthServicer
from sprite_agent.services.standard import add_standard_services
from superloop.ops.v1 import manager_pb2, manager_pb2_grpc

_SERVICE = manager_pb2.DESCRIPTOR.services_by_name["ManagerService"].full_name
# People and dashboards, each with one.
MAX_STREAMS = 256
# Streams that have not ended by then are cut off.
GOODBYE_SECONDS = 1.0
_READERS = 2


class FleetServer:
    """The server of one manager; calls are taken between start and stop.

    token "": open to all who reach the address, which the caller must have checked (check_exposure). repo:
    absolute path of the repository with the manager's files.
    """

    def __init__(self, board: Board, address: Address, token: str, repo: str) -> None:
        self._board = board
        self._address = address
        self._token = token
        self._repo = repo
        self._drain = Drain(lambda: None, MAX_STREAMS)
        self._pool = ThreadPoolExecutor(_READERS, "status")
        self._server: grpc.aio.Server | None = None
        self._health: DrainingHealthServicer | None = None

    async def start(self) -> str:
        """Take calls; the address with its real port. Raises OpsError `address_unavailable`."""
        gate = Gate(TokenCheck(self._token), lambda: self._drain.started, speaker=SPEAKER)
        server = grpc.aio.server(interceptors=(gate,), options=SERVER_OPTIONS)
        service = FleetService(self._board, self._repo, self._drain, self._pool)
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(service, server)
        self._health = await add_standard_services((_SERVICE,), server, self._drain.event)
        bound = listen(server, self._address, field="--listen")
        await server.start()
        self._server = server
        return bound

    async def stop(self) -> None:
        """Tell everybody, and end within about a second. A second call changes nothing."""
        server, self._server = self._server, None
        if server is not None and self._health is not None:
            await self._health.enter_graceful_shutdown()
            self._drain.start()
            await self._drain.wait_for_streams(GOODBYE_SECONDS)
            await server.stop(0.2)
        self._pool.shutdown(wait=False, cancel_futures=True)
