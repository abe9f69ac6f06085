"""One connection to a relay, and the transaction that it speaks.

aiosmtplib connects, negotiates TLS and authenticates. The transaction is spoken here, over its protocol object: its
exceptions don't tell whether a server died before or after it took a mail, and its `mail`, `rcpt` and `data` cost half
the rate (through ten connections 3,000 against 6,200 mails a second; under uvloop 6,200 against 16,800).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException, SMTPResponseException, SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol

from coupons.mail import Envelope
from coupons.smtp.outcomes import Outcome, OutOfStepError, Phase, Uncertain, Unreachable, judged, lost

MAX_EXPLANATION = 300  # characters
QUIT_SECONDS = 5

_FAILURES = (SMTPException, OSError, OutOfStepError)  # OSError: what sockets and TLS raise
_CLOSING = "421"  # RFC 5321 3.8: the relay closes the connection after it


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a step may take. Less than RFC 5321 4.5.3.2 advises, but for the last, where patience saves mails."""

    connect_seconds: float = 30
    command_seconds: float = 60
    dot_seconds: float = 600


class _StaleError(Exception):
    """The relay has ended a connection that was in use before, as it may: no mail was at stake."""


class Connection:
    """A connection that is opened when there is a mail to send, and again when it was lost."""

    def __init__(self, new_client: Callable[[], SMTP], timeouts: Timeouts, *, most_mails: int) -> None:
        self._new_client = new_client
        self._timeouts = timeouts
        self._most_mails = most_mails
        self._client: SMTP | None = None
        self._mails = 0
        self._begun = False  # whether the relay holds the beginning of a mail that did not come to its end
        self._phase = Phase.MAIL

    @property
    def is_open(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def send(self, envelope: Envelope) -> Outcome:
        """What became of the mail. After an exception, and a cancellation above all, `interrupted` has to tell."""
        self._phase = Phase.MAIL
        if self._mails and self._mails == self._most_mails:
            await self.quit()
        if self.is_open:
            with suppress(_StaleError):
                return await self._transaction(envelope, reused=True)
        return await self.reach() or await self._transaction(envelope, reused=False)

    async def reach(self) -> Unreachable | None:
        """Open the connection anew, up to and including authentication; what kept it from that."""
        try:
            await self._open()
        except (*_FAILURES, UnicodeError) as error:  # UnicodeError: a host name that DNS cannot have
            return Unreachable(_explained(error))
        return None

    def interrupted(self, reason: str) -> Outcome:
        """What became of the mail that `send` was at when something else stopped it. The connection is closed."""
        self.close()
        return Uncertain(reason) if self._phase is Phase.DOT else Unreachable(reason)

    async def quit(self) -> None:
        """Take leave, and don't wait long for an answer."""
        try:
            if self._client is not None:
                await self._client.quit(timeout=QUIT_SECONDS)
        except _FAILURES:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """At once: if it was closed in order, what is left of a mail would still be sent."""
        client, self._client = self._client, None
        self._mails, self._begun = 0, False
        if client is not None:
            if client.transport is not None:
                cast(asyncio.WriteTransport, client.transport).abort()
            client.close()

    async def _open(self) -> None:
        self.close()
        client = self._new_client()
        await client.connect()  # closes itself if it fails or is cancelled
        self._client = client
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()

    async def _transaction(self, envelope: Envelope, *, reused: bool) -> Outcome:
        try:
            outcome = await self._converse(envelope)
        except _FAILURES as error:
            self.close()
            outcome = lost(self._phase, _explained(error))
        if outcome.explanation.startswith(_CLOSING):
            self.close()
        if reused and self._phase is Phase.MAIL and not self.is_open:
            raise _StaleError
        self._mails += 1
        return outcome

    async def _converse(self, envelope: Envelope) -> Outcome:
        if self._begun and not (await self._said("RSET")).startswith("2"):
            raise OutOfStepError("RSET was refused")
        for phase, command in (
            (Phase.MAIL, f"MAIL FROM:<{envelope.mail_from}>{self._mail_options()}"),
            (Phase.RCPT, f"RCPT TO:<{envelope.rcpt_to}>"),
            (Phase.DATA, "DATA"),
        ):
            self._phase = phase
            outcome = judged(phase, await self._said(command))
            self._begun = phase is not Phase.MAIL or outcome is None
            if outcome is not None:
                return outcome
        reply = await self._handed_over(envelope.wire(eight_bit=False))
        self._begun = False
        return judged(Phase.DOT, reply) or Uncertain(reply)

    def _mail_options(self) -> str:
        """RET=HDRS (RFC 3461 4.3) keeps the codes out of bounces. BODY is not needed: envelopes are ASCII."""
        return " RET=HDRS" if self._client is not None and self._client.supports_extension("dsn") else ""

    async def _said(self, command: str) -> str:
        seconds = self._timeouts.command_seconds
        response = await self._protocol().execute_command(command.encode("ascii"), timeout=seconds)
        return _reply(response.code, response.message)

    async def _handed_over(self, wire: bytes) -> str:
        """Write the mail and its final dot at once; the relay's reply."""
        protocol = self._protocol()
        protocol.write(wire)  # raises only if nothing was written
        self._phase = Phase.DOT
        response = await protocol.read_response(timeout=self._timeouts.dot_seconds)
        return _reply(response.code, response.message)

    def _protocol(self) -> SMTPProtocol:
        if self._client is None or self._client.protocol is None:
            raise SMTPServerDisconnected("the connection was lost")
        return self._client.protocol


def _explained(error: Exception) -> str:
    match error:
        case SMTPAuthenticationError():  # not with its text, which might echo what we sent
            return f"the relay refused user and password: {error.code}"
        case SMTPResponseException():
            return _reply(error.code, error.message)
        case _:
            return _one_line(str(error) or type(error).__name__)


def _reply(code: int, text: str) -> str:
    return _one_line(f"{code} {text}")


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return text[:MAX_EXPLANATION].strip()
