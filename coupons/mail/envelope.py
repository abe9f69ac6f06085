"""A mail in the form in which it is handed to SMTP."""

from collections.abc import Callable
from dataclasses import dataclass, field

MAX_LINE = 998  # octets without the line break; RFC 5322 2.1.1
END = b".\r\n"  # RFC 5321 4.1.1.4


def dot_stuff(lines: bytes) -> bytes:
    """Dot-stuff lines with CRLF line breaks: each leading dot is doubled (RFC 5321 4.5.2)."""
    more = lines.replace(b"\r\n.", b"\r\n..")
    return b"." + more if more.startswith(b".") else more


@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail with its envelope addresses. The bytes of the mail are built on each request."""

    mail_from: str
    rcpt_to: str
    _wire: Callable[[bool], bytes] = field(repr=False)  # contains codes
    utf8: bool = False
    """Whether the relay must offer SMTPUTF8 (RFC 6531)."""

    @classmethod
    def plain(cls, mail_from: str, rcpt_to: str, data: bytes) -> "Envelope":
        """An envelope for the bytes of a mail. They must be ASCII, and each line must end with CRLF."""
        return cls(mail_from, rcpt_to, lambda _eight_bit: dot_stuff(data) + END)

    def wire(self, *, eight_bit: bool) -> bytes:
        """The bytes on the wire after DATA: dot-stuffed lines with CRLF line breaks, and the final dot.

        `eight_bit`: the relay offers 8BITMIME (RFC 6152), so non-ASCII text is sent unencoded. Otherwise all bytes are
        ASCII, except the recipient's address if `utf8` is set.
        """
        return self._wire(eight_bit)

    @property
    def data(self) -> bytes:
        """The mail that a recipient gets from a relay without 8BITMIME: not dot-stuffed, without the final dot."""
        wire = self.wire(eight_bit=False).removesuffix(END)
        return wire.replace(b"\r\n.", b"\r\n").removeprefix(b".")
