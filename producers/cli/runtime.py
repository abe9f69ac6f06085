"""What every command does: run, with settings and a database, and turn what went wrong into a line and an exit code."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import click

if TYPE_CHECKING:
    from coupons.commands import Command
    from coupons.database import Connection
    from coupons.settings import Settings

P = ParamSpec("P")

DONE, FAILED, REJECTED_LINES, INTERRUPTED = 0, 1, 3, 4
"""Exit codes; 2, wrong usage, is click's own."""


class Failed(click.ClickException):
    """One line on stderr, exit code 1."""

    exit_code = FAILED

    def show(self, file: Any = None) -> None:
        click.echo(f"coupons: {self.format_message()}", file=file, err=True)


def asynchronous(command: Callable[P, Coroutine[Any, Any, int | None]]) -> Callable[P, NoReturn]:
    """Run a command's coroutine; it returns its exit code, None for 0."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        with told():
            sys.exit(asyncio.run(command(*args, **kwargs)) or DONE)

    return run


@contextmanager
def told() -> Iterator[None]:
    """Errors meant for a person become `Failed`; others are defects and keep their traceback."""
    from asyncpg import InsufficientPrivilegeError, InterfaceError, PostgresError
    from pydantic import ValidationError

    from coupons.commands import reasons_of
    from coupons.errors import UserError
    from coupons.permission_errors import denial

    try:
        yield
    except UserError as error:
        raise Failed(str(error)) from None
    except ValidationError as error:
        raise Failed("; ".join(reasons_of(error))) from None
    except InsufficientPrivilegeError as error:
        raise Failed(denial(error)) from None
    except (PostgresError, InterfaceError, OSError, TimeoutError) as error:
        raise Failed(f"database: {type(error).__name__}") from None  # its text may hold codes
    except KeyboardInterrupt:
        raise Failed("interrupted; what was begun goes on in the workers") from None


@contextmanager
def nothing_begun() -> Iterator[None]:
    """Ctrl-C within is told as what it is: no worker has got anything that could go on."""
    try:
        yield
    except asyncio.CancelledError:
        raise Failed("interrupted; nothing was imported") from None


def settings() -> "Settings":
    """Of this process, if the Coupon Manager is activated on this system."""
    from coupons.settings import load_settings

    loaded = load_settings()
    loaded.require_activated()
    return loaded


@asynccontextmanager
async def database() -> AsyncIterator["Connection"]:
    """A connection to a database that is up to date."""
    from coupons.database import connected
    from coupons.migrate import check_current

    async with connected(settings().database_url.get_secret_value()) as connection:
        await check_current(connection)
        yield connection


async def publish(command: "Command") -> None:
    from producers.client import Publisher

    async with Publisher.connect(settings().broker_url.get_secret_value()) as publisher:
        await publisher.publish(command)
