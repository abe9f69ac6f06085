"""Errors of libraries are described without their texts."""

import asyncio
import socket
import ssl
import subprocess
import sys
from uuid import uuid4

import aiosmtplib
import asyncpg
import pytest
from aiormq.exceptions import AMQPConnectionError

from coupons.errors import LeaseLost
from coupons.foreign_errors import describe, error_location
from coupons.lease import renewed_lease
from producers.doctor import _type_and_id

CODE, ADDRESS = "SPRING-00001", "ada@example.org"
SECRET = f"554 {ADDRESS} {CODE}"


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def certificate_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, SECRET)
    error.verify_message = "self-signed certificate"
    return error


def tls_error() -> ssl.SSLError:
    error = ssl.SSLError(1, SECRET)
    error.reason = "WRONG_VERSION_NUMBER"
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, SECRET), "connection refused"),
        (OSError(f"Multiple exceptions: {SECRET}"), "no connection"),
        (TimeoutError(SECRET), "timed out"),
        (socket.gaierror(-2, SECRET), "the host name cannot be resolved"),
        (certificate_error(), "certificate verification failed: self-signed certificate"),
        (tls_error(), "TLS failed: wrong version number"),
        (asyncpg.UniqueViolationError(f"Key (code)=({CODE}) already exists"), "UniqueViolationError"),
        (asyncpg.DataError(f"invalid input for query argument $1: {ADDRESS}"), "DataError"),
        (caused_by(AMQPConnectionError(SECRET), ConnectionResetError(104, SECRET)), "connection reset by peer"),
        (
            caused_by(aiosmtplib.SMTPConnectError(SECRET), ConnectionRefusedError(111, SECRET)),
            "connection refused",
        ),
        (ValueError(SECRET), "ValueError"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_is_described_in_other_words(error: Exception, reason: str) -> None:
    """The description has the operating system's reason or the class of the error."""
    assert describe(error) == reason


async def test_the_location_of_a_failed_task_group_is_that_of_its_first_error() -> None:
    """Otherwise only the lines of the task group would be known."""

    async def fail() -> None:
        raise ValueError(SECRET)

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    assert error_location(caught.value).startswith("fail:")


@pytest.mark.parametrize("lost", [LeaseLost("import 1"), asyncpg.PostgresConnectionError(SECRET)])
async def test_the_reason_of_a_lost_lease_has_no_text_of_the_database(lost: Exception) -> None:
    """A worker logs the reason: what was leased, or the class of the error that prevented the renewal."""

    async def renew() -> None:
        raise lost

    with pytest.raises(LeaseLost) as caught:
        async with renewed_lease(renew, every=0.01, expires_after=0.015):
            await asyncio.sleep(5)
    assert str(caught.value) in ("import 1", "not renewed in time: PostgresConnectionError")


INTERNAL_ERROR = f"""
import logging, threading
import producers.cli

@producers.cli.main.command()
def fail():
    logging.getLogger("asyncio").error({SECRET!r})
    thread = threading.Thread(target=fail_in_thread)
    thread.start()
    thread.join()
    raise ValueError({SECRET!r})

def fail_in_thread():
    raise KeyError({SECRET!r})

producers.cli.main(["fail"])
"""


def test_an_internal_error_of_a_command_is_one_line_without_its_text() -> None:
    """The class and the lines of code are printed: no traceback, whose last line is the text of the error."""
    done = subprocess.run([sys.executable, "-c", INTERNAL_ERROR], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    thread, main = done.stderr.splitlines()
    assert thread.startswith("coupons: internal error: KeyError at fail_in_thread:")
    assert main.startswith("coupons: internal error: ValueError at fail:")
    assert CODE not in done.stderr
    assert ADDRESS not in done.stderr


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{{"type": "import", "id": "{id}"}}', "import {id}"),
        (f'{{{{"type": "{CODE}", "id": "{{id}}"}}}}', "command {id}"),
        (f'{{{{"type": "import", "id": "{ADDRESS}"}}}}', "command"),
        (f'{{{{"type": ["{CODE}"], "id": "{{id}}"}}}}', "command"),
        (f'["{CODE}"]', "command"),
        (CODE, "command"),
    ],
)
def test_doctor_shows_only_a_valid_type_and_id_of_a_rejected_command(body: str, shown: str) -> None:
    """A command that is not valid may have a code or an address anywhere."""
    id_ = uuid4()
    assert _type_and_id(body.format(id=id_).encode()) == shown.format(id=id_)
