"""Peers that are no agents: one that says nothing, and one that says nonsense."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def peer(says: bytes | None) -> Iterator[str]:
    """The address, as HOST:PORT, of somebody who takes connections and answers each with these bytes.

    None: takes them and stays silent.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # the listener is closed
            taken.append(connection)
            if says is not None:
                with suppress(OSError):  # who hears nonsense may hang up
                    connection.sendall(says)
                    connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # To close it alone would leave accept() waiting.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in taken:
            connection.close()


@contextmanager
def unused_address() -> Iterator[str]:
    """HOST:PORT where nobody listens, and nobody else will as long as the block lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
