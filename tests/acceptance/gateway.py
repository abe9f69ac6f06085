"""A gate in front of a service: a port of 127.0.0.1 that forwards to the service only while the gate is open."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from sandbox.process import free_ports

PIECE_BYTES = 65_536


class Gate:
    """A port that forwards to a service. `url` is the URL of the service with the port of the gate."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._service = parts.hostname or "", parts.port or 0
        (self._port,) = free_ports(1)
        credentials, _, _ = parts.netloc.rpartition("@")
        self._open: list[socket.socket] = []
        self.url = parts._replace(netloc=f"{credentials}@127.0.0.1:{self._port}").geturl()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Forward new connections until the block ends. Existing connections stay open."""
        with socket.create_server(("127.0.0.1", self._port)) as listener:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield
            listener.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Close all forwarded connections."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                service = socket.create_connection(self._service)
                self._open += client, service
                for source, target in ((client, service), (service, client)):
                    threading.Thread(target=forward, args=(source, target), daemon=True).start()


def forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
