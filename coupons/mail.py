"""An email: compiled once for a sendout, written for each recipient as the bytes that go over the wire.

The standard library's `EmailMessage` builds 510 to 750 mails a second and, in Python 3.11, lets an encoded line break
begin a header of its own. What a sendout needs of MIME is little and stands here, at 22,000 mails a second (2 kB, text
and HTML, rendering included); the tests hold it against the standard library's parser and generator.
"""

import re
import secrets
from binascii import b2a_base64, b2a_qp
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import quote
from uuid import UUID

from coupons.addresses import AddressError, parse_address
from coupons.errors import Told
from coupons.templates import Coupon, Parts, RenderError, Template

MAX_LINE = 998  # octets without the line break; RFC 5322 2.1.1
MAX_NAME = 60  # characters of a display name that is written as it is, not as encoded words

_ENCODED_LINE = 76  # characters of a line that holds an encoded word; RFC 2047 2
_MAILBOX = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<name>[^@,;:<>"\\]*?)) *<(?P<address>[^<>]*)>')
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]{1,250}@[!-;=?A-~]{1,250}>")
_UNSUBSCRIBE_URL = re.compile(r"(?:https?://|mailto:)(?:[!#-;=?-z|~]|\{address\}|\{message_id\})+")
_FOLDED = re.compile(r"(.{1,77})(?: |$)")
_NEEDS_ENCODING = re.compile(r"[^\t\r\n -~]")


class EmailError(Told):
    """An email cannot be compiled with these settings."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail as SMTP takes it. `data` is ASCII with CRLF line breaks, ends with one, and is not dot-stuffed."""

    mail_from: str
    rcpt_to: str
    data: bytes = field(repr=False)  # holds codes
    utf8: bool = False
    """Whether it can only be handed to a relay that offers SMTPUTF8 (RFC 6531)."""

    @classmethod
    def plain(cls, mail_from: str, rcpt_to: str, data: bytes) -> "Envelope":
        """An envelope around a mail that is bytes already."""
        return cls(mail_from, rcpt_to, data)

    def wire(self, *, eight_bit: bool) -> bytes:  # noqa: ARG002 - nothing is written in 8 bits yet
        """What goes over the wire after DATA: dot-stuffed, with the final dot (RFC 5321 4.5.2)."""
        stuffed = self.data.replace(b"\r\n.", b"\r\n..")
        return (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"


@dataclass(frozen=True, slots=True)
class Mailbox:
    name: str
    address: str


def parse_mailbox(text: str) -> Mailbox:
    """The mailbox of `Shop <shop@example.org>`, `"Shop, Inc." <shop@example.org>` or `shop@example.org`.

    Raises AddressError.
    """
    found = _MAILBOX.fullmatch(text.strip(" "))
    if found is None:
        return Mailbox("", parse_address(text).address)
    name = (found["name"] or re.sub(r"\\(.)", r"\1", found["quoted"] or "")).strip()
    if not name.isprintable():
        raise AddressError("has a name with control characters", text)
    return Mailbox(name, parse_address(found["address"]).address)


def message_id(sendout: UUID, number: int, domain: str) -> str:
    """The Message-ID, with its angle brackets, of a sendout's delivery: the same whenever that mail is sent."""
    return f"<{sendout.hex}.{number}@{domain}>"


def compile_email(
    *,
    template: Template,
    sender: str,
    reply_to: str | None = None,
    bounce_to: str | None = None,
    unsubscribe_url: str | None = None,
) -> "CompiledEmail":
    """What all mails of a sendout share.

    `sender` and `reply_to` are mailboxes. `bounce_to` is the envelope's sender if it is not the sender's address; in
    it, `{id}` becomes the part of the Message-ID before the "@", so that a bounce says whose it is. In
    `unsubscribe_url`, `{address}` and `{message_id}` (without brackets) are filled in.

    Raises AddressError and EmailError.
    """
    author = parse_mailbox(sender)
    head = [f"From: {_mailbox(author, used=len('From: '))}"]
    if reply_to:
        head.append(f"Reply-To: {_mailbox(parse_mailbox(reply_to), used=len('Reply-To: '))}")
    head.append("MIME-Version: 1.0")
    if bounce_to:
        parse_address(bounce_to.replace("{id}", f"{UUID(int=0).hex}.{1 << 31}"))
    if unsubscribe_url and not _UNSUBSCRIBE_URL.fullmatch(unsubscribe_url):
        raise EmailError(
            "the unsubscribe URL must be https, http or mailto, with no placeholders but {address}, {message_id}"
        )
    return CompiledEmail(
        template=template,
        mail_from=bounce_to or author.address,
        head="\r\n".join(head),
        unsubscribe_url=unsubscribe_url or "",
        # "=_" is never in quoted-printable (RFC 2045 6.7), and nobody who writes a body can guess the rest.
        boundary=f"=_{secrets.token_hex(16)}",
    )


@dataclass(frozen=True, slots=True)
class CompiledEmail:
    template: Template
    mail_from: str
    head: str
    unsubscribe_url: str
    boundary: str

    def write(
        self,
        *,
        rcpt: str,
        message_id: str,
        date: datetime,
        attributes: Mapping[str, str],
        coupons: Mapping[str, Coupon],
    ) -> Envelope:
        """The mail of one recipient. `date` has a time zone.

        Raises RenderError if there is no such mail: as `Template.render` does, or because of the address.
        """
        address = _checked(rcpt)
        if not _MESSAGE_ID.fullmatch(message_id):
            raise RenderError("the mail's Message-ID is not valid")
        parts = self.template.render(attributes, coupons)
        lines = [
            self.head,
            f"To: {address}",
            _subject(parts.subject),
            f"Date: {format_datetime(date)}",
            f"Message-ID: {message_id}",
            *self._unsubscribe(address, message_id),
            self._body(parts),
        ]
        mail_from = self.mail_from.replace("{id}", message_id[1:].partition("@")[0])
        return Envelope(mail_from, address, "\r\n".join(lines).encode("ascii"))

    def _unsubscribe(self, address: str, message_id: str) -> list[str]:
        """RFC 2369 3.2; one click (RFC 8058) needs https."""
        if not self.unsubscribe_url:
            return []
        values = {"{address}": address, "{message_id}": message_id[1:-1]}
        url = re.sub(r"\{\w+\}", lambda found: quote(values[found[0]], safe=""), self.unsubscribe_url)
        line = f"List-Unsubscribe: <{url}>"
        if len(line) > MAX_LINE:
            raise RenderError("the unsubscribe URL is too long")
        return [line, "List-Unsubscribe-Post: List-Unsubscribe=One-Click"] if url.startswith("https:") else [line]

    def _body(self, parts: Parts) -> str:
        if parts.html is None:
            return _part("plain", parts.text or "")
        if parts.text is None:
            return _part("html", parts.html)
        return "\r\n".join(
            (
                f'Content-Type: multipart/alternative; boundary="{self.boundary}"',
                "",
                f"--{self.boundary}",
                _part("plain", parts.text),
                f"--{self.boundary}",
                _part("html", parts.html),
                f"--{self.boundary}--",
                "",
            )
        )


def _checked(rcpt: str) -> str:
    try:
        return parse_address(rcpt).address
    except AddressError as error:
        reason = error.reason
    raise RenderError(f"the recipient's address {reason}")  # not chained: the error quotes the address


def _part(subtype: str, body: str) -> str:
    """A text part with its headers; its last line ends with a line break."""
    lines = body.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    content = "\r\n".join((*lines, ""))
    if max(map(len, lines)) > MAX_LINE or _NEEDS_ENCODING.search(body):
        encoding = "quoted-printable"
        content = b2a_qp(content.encode(), istext=True).decode("ascii")
    else:
        encoding = "7bit"
    return f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{content}"


def _subject(subject: str) -> str:
    line = f"Subject: {subject}"
    if line.isascii() and line.isprintable() and "=?" not in line:
        folded = _FOLDED.findall(line)
        if " ".join(folded) == line and folded[0] != "Subject:":
            return "\r\n ".join(folded)
    return f"Subject: {_encoded_words(subject, used=len('Subject: '))}"


def _mailbox(mailbox: Mailbox, *, used: int) -> str:
    """A From or Reply-To value; `used` as for `_encoded_words`."""
    name, address = mailbox.name, mailbox.address
    if not name:
        return address
    if name.isascii() and len(name) <= MAX_NAME and "=?" not in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        shown = f'"{escaped}"'
    else:
        shown = _encoded_words(name, used=used)
    on_one_line = used + len(f"{shown} <{address}>") <= _ENCODED_LINE
    return f"{shown} <{address}>" if on_one_line else f"{shown}\r\n <{address}>"


def _encoded_words(text: str, *, used: int) -> str:
    """`text` as RFC 2047 encoded words, a line each, none of which splits a character.

    `used` are the characters in front of it on the first line.
    """
    raw = text.encode()
    words: list[str] = []
    start = 0
    while start < len(raw):
        room = _ENCODED_LINE - (1 if words else used) - len("=?utf-8?b??=")
        end = start + room // 4 * 3
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # a byte inside a character
            end -= 1
        words.append(f"=?utf-8?b?{b2a_base64(raw[start:end], newline=False).decode('ascii')}?=")
        start = end
    return "\r\n ".join(words)
