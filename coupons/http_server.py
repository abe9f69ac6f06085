"""The HTTP server of the web console and of a worker's health checks: uvicorn on a socket that is already bound."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from coupons.errors import UserError


class CannotListen(UserError):
    """The address is in use, does not belong to this machine, or may not be used without a token."""


@contextmanager
def bound_socket(host: str, port: int, *, setting: str) -> Iterator[socket.socket]:
    """A socket that is bound to the address and does not listen yet. Errors mention `setting`, the port's setting.

    uvicorn does not bind the socket itself, because it exits without a message if the address cannot be bound.

    Raises CannotListen.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            reason = error.strerror or error
            raise CannotListen(f"cannot listen on {host}:{port} ({setting}): {reason}") from error
        yield bound


def server_config(app: ASGIApp, *, drain_seconds: int) -> uvicorn.Config:
    """A configuration without access log and version header. After a shutdown, open requests have `drain_seconds`."""
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=drain_seconds,
    )
