"""A mail as SMTP takes it."""

from collections.abc import Callable
from dataclasses import dataclass, field

MAX_LINE = 998  # octets without the line break; RFC 5322 2.1.1
END = b".\r\n"  # RFC 5321 4.1.1.4


def stuffed(lines: bytes) -> bytes:
    """Lines with their CRLFs, a dot more in front of each that begins with one (RFC 5321 4.5.2)."""
    more = lines.replace(b"\r\n.", b"\r\n..")
    return b"." + more if more.startswith(b".") else more


@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail, and what to say to the relay about it. The mail's bytes are made when they are asked for, each time."""

    mail_from: str
    rcpt_to: str
    _wire: Callable[[bool], bytes] = field(repr=False)  # holds codes
    utf8: bool = False
    """Whether it can only be handed to a relay that offers SMTPUTF8 (RFC 6531)."""

    @classmethod
    def plain(cls, mail_from: str, rcpt_to: str, data: bytes) -> "Envelope":
        """An envelope around a mail that is bytes already: ASCII, with CRLF line breaks, the last line with one too."""
        return cls(mail_from, rcpt_to, lambda _eight_bit: stuffed(data) + END)

    def wire(self, *, eight_bit: bool) -> bytes:
        """What goes over the wire after DATA: CRLF line breaks, dot-stuffed, with the final dot.

        `eight_bit`: the relay offers 8BITMIME (RFC 6152), so text may go as it is. Else all is ASCII, but for the
        recipient's address where `utf8` is set.
        """
        return self._wire(eight_bit)

    @property
    def data(self) -> bytes:
        """The mail as its reader gets it, for relays without 8BITMIME: not dot-stuffed, without the final dot."""
        wire = self.wire(eight_bit=False).removesuffix(END)
        return wire.replace(b"\r\n.", b"\r\n").removeprefix(b".")
