"""Shared by all commands: settings, a database connection, an event loop, errors as one line and an exit code."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import click

from producers.cli.closed_output import is_output_error

if TYPE_CHECKING:
    from coupons.commands import Command
    from coupons.database import Connection
    from coupons.settings import Settings

P = ParamSpec("P")

DONE, FAILED, REJECTED_LINES, INTERRUPTED, NOT_ALL_MAILED, STILL_RUNNING = 0, 1, 3, 4, 5, 6
"""Exit codes; click itself exits with 2 for wrong usage."""


class Failed(click.ClickException):
    """An error that is reported as one line on stderr, with exit code 1."""

    exit_code = FAILED

    def show(self, file: Any = None) -> None:
        click.echo(f"coupons: {self.format_message()}", file=file, err=True)


class TooFewCodes(Failed):
    """A list has too few codes, and nothing was changed. Reported with the exit code of an interrupted sendout."""

    exit_code = INTERRUPTED


class StillRunning(Failed):
    """`--timeout` has ended the wait for a job, which continues."""

    exit_code = STILL_RUNNING


def asynchronous(command: Callable[P, Coroutine[Any, Any, int | None]]) -> Callable[P, NoReturn]:
    """Turn a coroutine function into a command. It returns the exit code; None means 0."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        with user_errors():
            sys.exit(asyncio.run(command(*args, **kwargs)) or DONE)

    return run


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors that the user can act on into `Failed`. All others are internal errors."""
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
        if is_output_error(error):
            raise
        if isinstance(error.__cause__, UnicodeEncodeError):  # Python passes such bytes on as lone surrogates
            raise Failed("an argument is not valid UTF-8") from None
        raise Failed(f"database: {type(error).__name__}") from None  # the error's text may contain codes
    except KeyboardInterrupt:
        raise Failed("aborted; work already queued continues in the workers") from None


def check_zone() -> None:
    """Refuse an unknown time zone in TZ, which the C library would treat as UTC without a word."""
    if "TZ" in os.environ:
        from producers.local_time import UnknownZone, local_zone

        try:
            local_zone()
        except UnknownZone as error:
            raise Failed(str(error)) from None


def report_internal_errors() -> None:
    """From now on, report an internal error by its class and location: its text may contain codes or passwords.

    The logs of libraries are not printed, for the same reason.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    sys.excepthook = lambda _, error, __: _report(error)
    threading.excepthook = lambda failed: _report(failed.exc_value)
    sys.unraisablehook = lambda failed: _report(failed.exc_value)


def _report(error: BaseException | None) -> None:
    from coupons.foreign_errors import error_location, first_error

    if error is not None:
        name = type(first_error(error)).__name__
        click.echo(f"coupons: internal error: {name} at {error_location(error)}", err=True)


@contextmanager
def on_abort(outcome: str) -> Iterator[None]:
    """Report this outcome if Ctrl-C ends the block."""
    try:
        yield
    except asyncio.CancelledError:
        raise Failed(f"aborted; {outcome}") from None


def settings() -> "Settings":
    """Return the settings of this process."""
    from coupons.settings import load_settings

    return load_settings()


def require_activated(what: str) -> None:
    """Raise Conflict if the Coupon Manager is not activated on this system: this command is about coupons."""
    from coupons.store.activation import check_activated

    check_activated(activated=settings().activated, what=what)


@asynccontextmanager
async def database() -> AsyncIterator["Connection"]:
    """Yield a connection to the database. Raises an error if the database is not up to date."""
    from coupons.database import connect
    from coupons.migrate import check_current

    async with connect(settings().database_url.get_secret_value()) as connection:
        await check_current(connection)
        yield connection


async def publish(command: "Command") -> None:
    """Publish the command. Raises BrokerUnavailable."""
    from producers.client import Publisher

    async with Publisher.connect(settings().broker_url.get_secret_value()) as publisher:
        await publisher.publish(command)
