"""Emails that are compiled once per sendout and written for each recipient."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID

from coupons.addresses import AddressError, is_harmless, parse_address, parse_ascii_address
from coupons.errors import UserError
from coupons.mail.envelope import END, Envelope
from coupons.mail.files import File, file_part, file_problems
from coupons.mail.headers import (
    date_field,
    extra_field,
    extra_problems,
    mailbox_field,
    message_id_field,
    subject_field,
    unsubscribe_fields,
    unsubscribe_problems,
)
from coupons.mail.mailbox import parse_mailbox
from coupons.mail.parts import Encoding, TextPart, text_part
from coupons.templates.rendering import Coupon, Parts, RenderError, Template


class EmailError(UserError):
    """An email cannot be compiled with these settings. The text has one line for each reason."""


def message_id(sendout: UUID, number: int, domain: str) -> str:
    """The Message-ID of a delivery, with its angle brackets. It is the same each time this mail is sent."""
    return f"<{sendout.hex}.{number}@{domain}>"


def compile_email(
    *,
    template: Template,
    sender: str,
    reply_to: str | None = None,
    bounce_to: str | None = None,
    unsubscribe_url: str | None = None,
    headers: Mapping[str, str] = {},
    files: Sequence[File] = (),
) -> "CompiledEmail":
    """Compile the parts that all mails of a sendout share.

    `sender` and `reply_to` are mailboxes. `bounce_to` is the envelope sender, by default the address of `sender`. Its
    `{id}` is replaced by the part of the Message-ID before the "@", so that a bounce identifies its mail. In
    `unsubscribe_url`, `{address}` and `{message_id}` (without brackets) are replaced. `headers` are additional headers
    of every mail. `files` are part of every mail; they are encoded here.

    Raises AddressError for an invalid mailbox or bounce address, and EmailError with all other reasons at once.
    """
    author = parse_mailbox(sender)
    reply_mailbox = parse_mailbox(reply_to) if reply_to else None
    mail_from = _bounce_address(bounce_to) if bounce_to else author.address
    problems = (
        unsubscribe_problems(unsubscribe_url or "")
        + extra_problems(headers)
        + file_problems(files, template.parts.html)
    )
    if problems:
        raise EmailError("\n".join(problems))
    fields = [
        mailbox_field("From", author),
        *([mailbox_field("Reply-To", reply_mailbox)] if reply_mailbox else []),
        "MIME-Version: 1.0",
        *(extra_field(name, value) for name, value in headers.items()),
    ]
    text = _text_part(template, "text", "plain")
    html = _text_part(template, "html", "html")
    return CompiledEmail(
        template=template,
        domain=author.address.rpartition("@")[2],
        mail_from=mail_from,
        same_fields="".join(f"{each}\r\n" for each in fields),
        unsubscribe_url=unsubscribe_url or "",
        text=text,
        html=html,
        frame=_frame(files, "multipart/alternative" if text and html else "text/html" if html else "text/plain"),
    )


def check_settings(*, bounce_to: str, unsubscribe_url: str) -> None:
    """Check two settings, which may be empty. Raises EmailError if no message can be compiled with them."""
    problems = unsubscribe_problems(unsubscribe_url)
    try:
        if bounce_to:
            _bounce_address(bounce_to)
    except AddressError as error:
        problems = [*problems, f"COUPONS_BOUNCE_ADDRESS: the bounce address {error.reason}"]
    if problems:
        raise EmailError("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes around the text parts: multipart boundaries and files. All bytes are dot-stuffed."""

    opening: bytes = b""
    opening_8bit: bytes = b""
    between: bytes = b""
    closing: bytes = b""


@dataclass(frozen=True, slots=True)
class CompiledEmail:
    """The compiled email of a sendout. `domain` is the domain of the sender's address, for Message-IDs."""

    template: Template
    domain: str
    mail_from: str
    same_fields: str
    unsubscribe_url: str
    text: TextPart | None = field(repr=False)
    html: TextPart | None = field(repr=False)
    frame: Frame = field(repr=False)  # contains the files

    def message_id(self, sendout: UUID, number: int) -> str:
        """The Message-ID of the sendout's delivery with this number."""
        return message_id(sendout, number, self.domain)

    def write(
        self,
        *,
        rcpt: str,
        message_id: str,
        date: datetime,
        attributes: Mapping[str, str],
        coupons: Mapping[str, Coupon],
    ) -> Envelope:
        """The mail of one recipient. `date` needs a time zone.

        Raises RenderError as `Template.render` does, and for an invalid address.
        """
        varying = self.template.render_varying(attributes, coupons)
        return self.compose(varying, rcpt=rcpt, message_id=message_id, date=date)

    def compose(self, varying: Parts, *, rcpt: str, message_id: str, date: datetime) -> Envelope:
        """The mail with these parts, which `Template.render_varying` returned. Raises RenderError for a bad address."""
        address = rcpt if is_harmless(rcpt) else _parse_rcpt(rcpt)
        id_field = message_id_field(message_id)
        fields = [
            f"{self.same_fields}To: {address}",
            subject_field(varying.subject),
            date_field(date),
            id_field,
        ]
        if self.unsubscribe_url:
            fields.append(unsubscribe_fields(self.unsubscribe_url, address=address, message_id=message_id[1:-1]))
        mail_from = self.mail_from.replace("{id}", message_id[1 : message_id.index("@")])
        head = "\r\n".join(fields)
        return Envelope(mail_from, address, partial(self._wire, head, varying), utf8=not address.isascii())

    def _wire(self, head: str, varying: Parts, eight_bit: bool) -> bytes:
        pieces: list[bytes] = []
        encodings: list[Encoding] = []
        for part, text in ((self.text, varying.text), (self.html, varying.html)):
            if part is None:
                continue
            if pieces:
                pieces.append(self.frame.between)
            encoding, encoded = part.pieces(text or "", eight_bit=eight_bit)
            encodings.append(encoding)
            pieces += encoded
        opening = self.frame.opening_8bit if Encoding.EIGHT_BIT in encodings else self.frame.opening
        return b"".join((f"{head}\r\n".encode(), opening, *pieces, self.frame.closing, END))


def _text_part(template: Template, name: str, subtype: str) -> TextPart | None:
    return text_part(subtype, template.chunks[name], template.mark) if name in template.chunks else None


def _bounce_address(text: str) -> str:
    parse_address(text.replace("{id}", f"{UUID(int=0).hex}.{1 << 31}"))  # checks the length with the longest id
    return parse_ascii_address(text)


def _parse_rcpt(rcpt: str) -> str:
    try:
        return parse_address(rcpt).address
    except AddressError as error:
        reason = error.reason
    raise RenderError(f"the recipient's address {reason}")  # not chained: the error quotes the address


def _frame(files: Sequence[File], body: str) -> Frame:
    """The frame `mixed(related(alternative(text, html), inline files), attachments)`. A level of one part is omitted.

    `body` is the content type of the text parts.
    """
    frame = Frame()
    if body == "multipart/alternative":
        frame = _multipart(frame, "alternative", [])
    if inline := [file_part(file) for file in files if file.inline]:
        frame = _multipart(frame, f'related; type="{body}"', inline)
    if attached := [file_part(file) for file in files if not file.inline]:
        frame = _multipart(frame, "mixed", attached)
    return frame


def _multipart(inner: Frame, subtype: str, further: Sequence[bytes]) -> Frame:
    # "=_" never occurs in quoted-printable (RFC 2045 6.7), and no author of a body can guess the random digits.
    boundary = f"=_{secrets.token_hex(16)}"
    separator = f"--{boundary}\r\n".encode("ascii")
    content_type = f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"\r\n'.encode("ascii")
    end = inner.closing or b"\r\n"  # the line break before a boundary belongs to the boundary; text ends with its own
    return Frame(
        opening=content_type + b"\r\n" + separator + inner.opening,
        opening_8bit=content_type + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + separator + inner.opening_8bit,
        between=inner.between or b"\r\n" + separator,
        closing=b"".join((end, *(separator + part for part in further), b"--" + separator[2:-2] + b"--\r\n")),
    )
