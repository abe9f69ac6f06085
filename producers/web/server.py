"""`coupons web`: one process that listens, from its first line to its last."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from coupons import logs
from coupons.database import pooled
from coupons.errors import UserError
from coupons.migrate import check_current
from coupons.settings import Settings
from producers.web.app import build

log = structlog.get_logger()
POOL_SIZE = 10
DRAIN_SECONDS = 10
"""What requests in hand get to come to their end."""


class CannotListen(UserError):
    """The address is in use, not ours, or open to others without a token."""


async def serve(settings: Settings) -> None:
    """Serve the console and the API until SIGTERM or SIGINT.

    Raises:
        CannotListen, DatabaseUnavailable, MigrationError: before anything was served.
    """
    logs.configure(settings)
    with _listening(settings) as listener:
        async with pooled(settings.database_url.get_secret_value(), size=POOL_SIZE) as pool:
            async with pool.acquire() as connection:
                await check_current(connection)
            server = uvicorn.Server(
                uvicorn.Config(
                    build(settings=settings, pool=pool),
                    lifespan="off",
                    ws="none",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    timeout_graceful_shutdown=DRAIN_SECONDS,
                )
            )
            _outlive_signals()
            log.info("serving", url=_url(listener))
            await server.serve(sockets=[listener])
    log.info("stopped serving")


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Bound here and not by uvicorn, which would end the process without a word, to be checked as what it is."""
    family = socket.AF_INET6 if ":" in settings.web_host else socket.AF_INET
    where = f"{settings.web_host}:{settings.web_port}"
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.web_host, settings.web_port))
        except OSError as error:
            raise CannotListen(f"cannot listen on {where}: {error.strerror or error}") from error
        if not settings.web_token.get_secret_value() and not _is_loopback(listener):
            raise CannotListen(f"refusing to listen on {where} without COUPONS_WEB_TOKEN: others can reach it")
        listener.listen()
        yield listener


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}/" if listener.family is socket.AF_INET6 else f"http://{host}:{port}/"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _outlive_signals() -> None:
    """Uvicorn ends at a signal and then raises it again, which without a handler would kill the process unclosed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
