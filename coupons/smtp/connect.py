"""Open a connection to a relay: aiosmtplib connects, sends EHLO, negotiates TLS and authenticates."""

import asyncio
import re
from dataclasses import dataclass
from typing import cast

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from coupons.foreign_errors import describe
from coupons.keepalive import notice_silence
from coupons.smtp.address import SmtpAddress, SmtpAddressError, Tls
from coupons.smtp.commands import Capabilities
from coupons.smtp.replies import OutOfStepError, one_line, reply_codes

_SIZE = re.compile("[0-9]{1,20}").fullmatch  # RFC 1870 3


@dataclass(frozen=True, slots=True)
class Opened:
    """An authenticated connection without commands or unread replies."""

    transport: asyncio.Transport
    capabilities: Capabilities


class ConnectError(Exception):
    """The relay cannot be reached. The text is the reason, without any text of the relay."""

    def __init__(self, reason: str, reply: str = "") -> None:
        """`reply` is the relay's whole reply, for the operator who asked for a check of the relays."""
        super().__init__(reason)
        self.reply = reply


class Connector:
    """Opens connections to one address."""

    def __init__(self, address: SmtpAddress, local_hostname: str | None, step_seconds: float) -> None:
        """`local_hostname` is sent in EHLO; the default is the name of this machine. `step_seconds` limits each step.

        Raises SmtpAddressError if the certificates cannot be read or the hostname is invalid.
        """
        if local_hostname and not re.fullmatch(r"[!-~]+", local_hostname):
            raise SmtpAddressError("the EHLO hostname must be printable ASCII without spaces")
        self._address = address
        self._tls_context = address.tls_context()
        self._local_hostname = local_hostname or None
        self._step_seconds = step_seconds

    async def connect(self) -> Opened:
        """Open a connection. Raises ConnectError.

        The caller must set the protocol of the transport before it awaits anything else.
        """
        address = self._address
        client = SMTP(
            hostname=address.host,
            port=address.port,
            username=address.username,
            password=address.password,
            local_hostname=self._local_hostname,
            timeout=self._step_seconds,
            use_tls=address.tls is Tls.IMPLICIT,
            start_tls=address.tls is Tls.STARTTLS,  # never None, which would make TLS optional
            tls_context=self._tls_context,
        )
        try:
            await client.connect()  # closes the connection if it fails or is cancelled
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
            return _opened(client)
        except (SMTPException, OSError, OutOfStepError, UnicodeError) as error:
            # Sockets and TLS raise OSError. A host name that is invalid in DNS raises UnicodeError.
            client.close()
            raise ConnectError(_reason(error), _reply(error)) from error
        except asyncio.CancelledError:
            client.close()
            raise


def _opened(client: SMTP) -> Opened:
    protocol = client.protocol
    if protocol is None or protocol.transport is None or not protocol.is_connected:
        raise OutOfStepError("the connection was lost")
    if protocol._buffer:  # noqa: SLF001 - aiosmtplib has no public access to bytes after the last reply
        raise OutOfStepError("the relay sent more than one reply")
    offered = client.esmtp_extensions
    capabilities = Capabilities(
        pipelining="pipelining" in offered,
        eight_bit="8bitmime" in offered,
        utf8="smtputf8" in offered,
        dsn="dsn" in offered,
        size=int(size) if _SIZE(size := offered.get("size", "")) else 0,
    )
    transport = cast(asyncio.Transport, protocol.transport)
    notice_silence(transport.get_extra_info("socket"))
    return Opened(transport, capabilities)


def _reason(error: Exception) -> str:
    match error:
        case SMTPAuthenticationError():
            return f"the relay rejected the user name or password: {_codes(error)}"
        case SMTPResponseException():
            return f"the relay refuses the connection: {_codes(error)}"
        case SMTPServerDisconnected() | SMTPConnectError(__cause__=SMTPServerDisconnected()):
            return "the relay closed the connection"
        case OutOfStepError():
            return str(error)
        case SMTPException() if type(error) is SMTPException:  # aiosmtplib's own text: STARTTLS or AUTH is not offered
            return str(error)
    return describe(error)


def _reply(error: Exception) -> str:
    """Return the relay's whole reply to the connection, EHLO or STARTTLS. One to AUTH may contain the credentials."""
    if isinstance(error, SMTPResponseException) and not isinstance(error, SMTPAuthenticationError):
        return one_line(f"{error.code} {error.message}")
    return ""


def _codes(error: SMTPResponseException) -> str:
    return reply_codes(f"{error.code} {error.message}")
