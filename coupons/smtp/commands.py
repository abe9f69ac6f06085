"""The commands of an SMTP session, and the order in which their replies are expected."""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from coupons.mail import Envelope
from coupons.smtp.outcomes import Phase


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The extensions that the relay offers in its reply to EHLO."""

    pipelining: bool = False
    eight_bit: bool = False
    utf8: bool = False
    dsn: bool = False
    size: int = 0
    """The size in octets of the largest mail that the relay accepts, or 0 if it announces no limit."""


class Control(Enum):
    """A command that does not belong to a mail. (LONE_DOT ends a mail without recipients.)"""

    RSET = "RSET"
    LONE_DOT = "a lone dot"
    QUIT = "QUIT"


Awaited = Phase | Control
"""A written command whose reply is expected."""

GROUP = (Phase.MAIL, Phase.RCPT, Phase.DATA)


class Commands:
    """Written commands wait in `awaited` for their replies. Without PIPELINING, one command is written at a time."""

    __slots__ = ("_out", "_pending", "awaited", "pipelining")

    def __init__(self, *, pipelining: bool) -> None:
        self.pipelining = pipelining
        self.awaited: deque[Awaited] = deque()
        self._out: list[bytes] = []
        self._pending: deque[tuple[Awaited, bytes]] = deque()

    def send(self, command: Awaited, line: bytes) -> None:
        if self.pipelining or not self.awaited:
            self.write(command, line)
        else:
            self._pending.append((command, line))

    def send_group(self, group: bytes) -> None:
        """Send the three lines MAIL, RCPT and DATA."""
        if self.pipelining:
            self._out.append(group)
            self.awaited.extend(GROUP)
        else:
            self._pending.extend(zip(GROUP, group.splitlines(keepends=True), strict=True))
            self.send_pending()

    def send_pending(self) -> None:
        """Write the next pending command, if no reply is awaited."""
        if self._pending and not self.awaited:
            self.write(*self._pending.popleft())

    def drop_pending(self) -> None:
        self._pending.clear()

    def write(self, command: Awaited, data: bytes) -> None:
        self._out.append(data)
        self.awaited.append(command)

    def take_output(self) -> bytes:
        """Return the bytes to write to the connection now, and forget them."""
        out = b"".join(self._out)
        self._out.clear()
        return out


def group_for(envelope: Envelope, capabilities: Capabilities) -> bytes:
    """Return the lines MAIL, RCPT and DATA for a mail. Raises ValueError if an address has a control character."""
    mail_from, rcpt_to = envelope.mail_from, envelope.rcpt_to
    if not (mail_from.isprintable() and rcpt_to.isprintable()):
        raise ValueError("an address contains a prohibited control character")
    eight_bit = " BODY=8BITMIME" if capabilities.eight_bit else ""
    dsn = " RET=HDRS" if capabilities.dsn else ""
    utf8 = " SMTPUTF8" if envelope.utf8 else ""
    group = f"MAIL FROM:<{mail_from}>{eight_bit}{dsn}{utf8}\r\nRCPT TO:<{rcpt_to}>\r\nDATA\r\n"
    return group.encode("utf-8" if envelope.utf8 else "ascii")


def refusal_of(envelope: Envelope, wire: bytes, capabilities: Capabilities) -> str | None:
    """Return the reply that the relay would give to the MAIL command, or None if it may accept this mail."""
    if envelope.utf8 and not capabilities.utf8:  # RFC 6531 3.5
        return "553 5.6.7 the address needs SMTPUTF8, and the relay does not offer SMTPUTF8"
    size = capabilities.size
    if size and len(wire) > size and (octets := _octets(wire)) > size:  # RFC 1870 6.1
        return f"552 5.3.4 the mail has {octets} octets, and the relay accepts {size}"
    return None


def _octets(wire: bytes) -> int:
    """Return the size of the mail itself, without the dots that SMTP adds."""
    return len(wire) - 3 - (wire.count(b"\r\n.") - 1) - wire.startswith(b".")
