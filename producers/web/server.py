"""`coupons web`: serves the console and the HTTP API until SIGTERM or SIGINT."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from coupons import logs
from coupons.database import open_pool
from coupons.http_server import CannotListen, bound_socket, server_config
from coupons.migrate import check_current
from coupons.settings import Settings
from producers.web.app import build

log = structlog.get_logger()
POOL_SIZE = 10
DRAIN_SECONDS = 10
"""How long open requests may take to finish after a signal."""


async def serve(settings: Settings) -> None:
    """Serve the console and the API until SIGTERM or SIGINT.

    Raises:
        CannotListen, DatabaseUnavailable, MigrationError: the server could not start.
    """
    logs.configure(settings)
    with _listener(settings) as listener:
        async with open_pool(settings.database_url.get_secret_value(), size=POOL_SIZE) as pool:
            async with pool.acquire() as connection:
                await check_current(connection)
            server = uvicorn.Server(server_config(build(settings=settings, pool=pool), drain_seconds=DRAIN_SECONDS))
            _ignore_signals()
            log.info("serving", url=_url(listener))
            await server.serve(sockets=[listener])
    log.info("stopped serving")


@contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    """Yield the listening socket. Its bound address decides, before it listens, whether a token is required."""
    host, port = settings.web_host, settings.web_port
    with bound_socket(host, port, setting="COUPONS_WEB_PORT") as listener:
        if not settings.web_token.get_secret_value() and not _is_loopback(listener):
            raise CannotListen(f"cannot listen on {host}:{port} without COUPONS_WEB_TOKEN: not a loopback address")
        listener.listen()
        yield listener


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}/" if listener.family is socket.AF_INET6 else f"http://{host}:{port}/"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _ignore_signals() -> None:
    """Uvicorn stops at a signal and then raises the signal again, which would kill this process without a handler."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
