"""Open a connection to a relay: aiosmtplib connects, says EHLO, negotiates TLS and authenticates."""

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import cast

from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException, SMTPResponseException

from coupons.keepalive import notice_silence
from coupons.smtp.address import SmtpAddress, Tls
from coupons.smtp.outcomes import OutOfStepError
from coupons.smtp.replies import one_line
from coupons.smtp.session import Offers

_SIZE = re.compile("[0-9]{1,20}").fullmatch  # RFC 1870 3


@dataclass(frozen=True, slots=True)
class Opened:
    """Authenticated, and nothing said since."""

    transport: asyncio.Transport
    offers: Offers


class OpeningError(Exception):
    """The relay cannot be reached; the reason, for a person."""


async def open_connection(
    address: SmtpAddress, *, tls_context: ssl.SSLContext | None, local_hostname: str | None, seconds: float
) -> Opened:
    """Whoever gets the transport sets its protocol before waiting for anything. `seconds` are for each step.

    Raises OpeningError.
    """
    client = SMTP(
        hostname=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        local_hostname=local_hostname,
        timeout=seconds,
        use_tls=address.tls is Tls.IMPLICIT,
        start_tls=address.tls is Tls.STARTTLS,  # never None, which means: if the server likes
        tls_context=tls_context,
    )
    try:
        await client.connect()  # closes itself if it fails or is cancelled
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()
        return _opened(client)
    except (SMTPException, OSError, OutOfStepError, UnicodeError) as error:
        # OSError: what sockets and TLS raise. UnicodeError: a host name that DNS cannot have.
        client.close()
        raise OpeningError(_explained(error)) from error
    except asyncio.CancelledError:
        client.close()
        raise


def _opened(client: SMTP) -> Opened:
    protocol = client.protocol
    if protocol is None or protocol.transport is None or not protocol.is_connected:
        raise OutOfStepError("the connection was lost")
    if protocol._buffer:  # noqa: SLF001 - what was read behind the last reply is nowhere else
        raise OutOfStepError("the relay said more than was asked")
    offered = client.esmtp_extensions
    offers = Offers(
        pipelining="pipelining" in offered,
        eight_bit="8bitmime" in offered,
        utf8="smtputf8" in offered,
        dsn="dsn" in offered,
        size=int(size) if _SIZE(size := offered.get("size", "")) else 0,
    )
    transport = cast(asyncio.Transport, protocol.transport)
    notice_silence(transport.get_extra_info("socket"))
    return Opened(transport, offers)


def _explained(error: Exception) -> str:
    match error:
        case SMTPAuthenticationError():  # not with its text, which might echo what we sent
            return f"the relay refused user and password: {error.code}"
        case SMTPResponseException():
            return one_line(f"{error.code} {error.message}")
        case _:
            return one_line(str(error) or type(error).__name__)
