import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.mail import (
    MAX_LINE,
    CompiledEmail,
    EmailError,
    Envelope,
    compile_email,
    message_id,
)
from coupons.templates.rendering import Coupon, Parts, RenderError, Template

SENDOUT = UUID("6138acdd-fd25-493d-ab54-8ba9b28abedc")
NOON = datetime(2026, 3, 20, 12, 0, 0, tzinfo=UTC)
UNSUBSCRIBE = "https://shop.example/unsubscribe?who={address}&mail={message_id}"

VALUES = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
    | st.text(st.sampled_from("ab .=?_<>\"'&-\t\r\n\x00\x0b\x1f\x7f\x85\u2028ß€🎟\u0301"), max_size=300)
    | st.sampled_from(
        [".", "\r\n.\r\n", "\nBcc: eve@example.org\n\n", "=?utf-8?b?Cg==?=", "x" * 3_000, "ö " * 500, "From me"]
    )
)
CODES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=200)


def compile_mail(
    parts: Parts, *, sender: str = "Shop <shop@example.org>", reply_to: str = "", bounce_to: str = "", url: str = ""
) -> CompiledEmail:
    return compile_email(
        template=Template(parts), sender=sender, reply_to=reply_to, bounce_to=bounce_to, unsubscribe_url=url
    )


def write(
    email: CompiledEmail,
    *,
    rcpt: str = "ada@example.org",
    attributes: dict[str, str] | None = None,
    coupons: dict[str, Coupon] | None = None,
) -> Envelope:
    return email.write(
        rcpt=rcpt,
        message_id=message_id(SENDOUT, 7, "example.org"),
        date=NOON,
        attributes=attributes or {},
        coupons=coupons or {},
    )


def parse(envelope: Envelope) -> EmailMessage:
    email = message_from_bytes(envelope.data, policy=default)
    assert isinstance(email, EmailMessage)
    assert not email.defects
    return email


def content(email: EmailMessage, subtype: str) -> str | None:
    part = email.get_body((subtype,))
    return None if part is None else lines_of(part.get_content())


def lines_of(text: str) -> str:
    """`text` with uniform line breaks and one line break at the end, as MIME preserves it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n") + "\n"


def reference_mail(parts: Parts) -> EmailMessage:
    """The same mail, written and parsed by the standard library."""
    email = EmailMessage(policy=SMTP)
    email["Subject"] = parts.subject
    if parts.text is not None:
        email.set_content(lines_of(parts.text))
    if parts.text is None:
        email.set_content(lines_of(parts.html or ""), subtype="html")
    elif parts.html is not None:
        email.add_alternative(lines_of(parts.html), subtype="html")
    return parse(Envelope.plain("", "", email.as_bytes()))


# --- the bytes -------------------------------------------------------------------------------------------------------


@given(VALUES, CODES, st.sampled_from(["text", "html", "both"]))
def test_a_parsed_mail_equals_the_rendered_parts(value: str, code: str, kind: str) -> None:
    """Subject, text and HTML with any value and code arrive as rendered.

    The mail equals the mail that the standard library would send.
    """
    text = "Dear {{ name }},\n{{ name }}: {{ coupon('spring') }}" if kind != "html" else None
    html = "<p>Dear {{ name }}, {{ coupon('spring') }}</p>\n" if kind != "text" else None
    template = Template(Parts("{{ name }} gets a voucher", text, html))
    attributes, coupons = {"name": value}, {"spring": Coupon(code, is_code=True)}
    rendered = template.render(attributes, coupons)

    email = parse(write(compile_mail(template.parts), attributes=attributes, coupons=coupons))

    assert email["Subject"] == rendered.subject
    assert content(email, "plain") == (None if rendered.text is None else lines_of(rendered.text))
    assert content(email, "html") == (None if rendered.html is None else lines_of(rendered.html))
    reference = reference_mail(rendered)
    assert content(email, "plain") == content(reference, "plain")
    assert content(email, "html") == content(reference, "html")
    assert email.get_content_type() == reference.get_content_type()


@given(VALUES, CODES)
def test_the_bytes_conform_to_the_standards(value: str, code: str) -> None:
    """A mail is ASCII with CRLF only, no line exceeds 998 octets, and it has only the expected headers."""
    parts = Parts("{{ name }}", "{{ name }} {{ coupon('spring') }}", "<p>{{ name }}</p>")
    email = compile_mail(parts, sender="Bücherladen <shop@example.org>", reply_to="help@example.org", url=UNSUBSCRIBE)
    data = write(email, attributes={"name": value}, coupons={"spring": Coupon(code, is_code=True)}).data

    assert data.isascii()
    assert data.endswith(b"\r\n")
    lines = data.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    assert max(map(len, lines)) <= MAX_LINE
    head = data.partition(b"\r\n\r\n")[0].decode("ascii")
    assert re.findall(r"^([\w-]+):", head, re.MULTILINE) == [
        "From",
        "Reply-To",
        "MIME-Version",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "Content-Type",
    ]
    assert all(line.strip() for line in head.split("\r\n"))
    assert data.count(b"Content-Type:") == 3


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=300).map(
        lambda text: " ".join(text.split())
    )
)
def test_a_subject_is_folded_within_78_characters(subject: str) -> None:
    """Lines of a subject keep the length that RFC 5322 recommends, or with encoded words the limit of RFC 2047."""
    data = write(compile_mail(Parts("-{{ s }}", "x", None)), attributes={"s": subject}).data.decode("ascii")
    found = re.search(r"^Subject: .*(?:\r\n .*)*", data, re.MULTILINE)
    assert found is not None
    for line in found[0].split("\r\n"):
        assert len(line) <= (76 if "=?" in line else 78)


def test_plain_ascii_stays_readable() -> None:
    """A mail of plain ASCII with short lines is not encoded."""
    subject = "Your voucher, dear reader, is waiting in this mail, together with all the best wishes of your shop"
    assert write(compile_mail(Parts(subject, "Hello\nAda\n", None))).data == (
        b'From: "Shop" <shop@example.org>\r\n'
        b"MIME-Version: 1.0\r\n"
        b"To: ada@example.org\r\n"
        b"Subject: Your voucher, dear reader, is waiting in this mail, together with\r\n"
        b" all the best wishes of your shop\r\n"
        b"Date: Fri, 20 Mar 2026 12:00:00 +0000\r\n"
        b"Message-ID: <6138acddfd25493dab548ba9b28abedc.7@example.org>\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hello\r\n"
        b"Ada\r\n"
    )


def test_a_word_that_cannot_be_folded_is_encoded() -> None:
    """A subject of one long word is encoded to fit the line length, and arrives unchanged."""
    envelope = write(compile_mail(Parts("{{ s }}", "x", None)), attributes={"s": "x" * 2_000})
    assert parse(envelope)["Subject"] == "x" * 2_000


def test_text_that_looks_encoded_arrives_unchanged() -> None:
    """Text in an attribute that looks like an encoded word is not decoded by the recipient's mail program."""
    envelope = write(compile_mail(Parts("Hi {{ s }}", "x", None)), attributes={"s": "=?utf-8?q?A=0AB?="})
    assert parse(envelope)["Subject"] == "Hi =?utf-8?q?A=0AB?="


def test_one_click_unsubscribe_identifies_the_recipient() -> None:
    """The unsubscribe URL contains the quoted recipient and mail (RFC 8058). Only an https URL offers one-click."""
    email = parse(write(compile_mail(Parts("s", "t", None), url=UNSUBSCRIBE), rcpt="a+b@example.org"))
    assert email["List-Unsubscribe"] == (
        "<https://shop.example/unsubscribe?who=a%2Bb%40example.org&mail=6138acddfd25493dab548ba9b28abedc.7%40example.org>"
    )
    assert email["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    by_mail = parse(write(compile_mail(Parts("s", "t", None), url="mailto:off@example.org?subject={message_id}")))
    assert by_mail["List-Unsubscribe"].startswith("<mailto:off@example.org?subject=6138")
    assert by_mail["List-Unsubscribe-Post"] is None


def test_the_bounce_address_identifies_the_mail() -> None:
    """The envelope sender is the author, or an individual bounce address for each mail if one is configured."""
    assert write(compile_mail(Parts("s", "t", None))).mail_from == "shop@example.org"
    email = compile_mail(Parts("s", "t", None), bounce_to="bounces+{id}@mail.example.org")
    assert write(email).mail_from == "bounces+6138acddfd25493dab548ba9b28abedc.7@mail.example.org"


def test_a_message_id_is_stable() -> None:
    """A Message-ID depends only on sendout and delivery, so a resent mail can be recognized."""
    assert message_id(SENDOUT, 7, "example.org") == "<6138acddfd25493dab548ba9b28abedc.7@example.org>"


def test_the_repr_of_an_envelope_hides_its_data() -> None:
    """Tracebacks and debug output show no code."""
    coupons = {"spring": Coupon("SPRING-1", is_code=True)}
    assert "SPRING-1" not in repr(write(compile_mail(Parts("s", '{{ coupon("spring") }}', None)), coupons=coupons))


@pytest.mark.parametrize(
    "url",
    ["shop.example/u", "javascript:alert(1)", "https://shop.example/{who}", "https://a b", "https://a>\r\nBcc: x"],
)
def test_an_invalid_unsubscribe_url_is_rejected(url: str) -> None:
    """An invalid unsubscribe URL is rejected before the first mail is written."""
    with pytest.raises(EmailError, match="the unsubscribe URL must be"):
        compile_mail(Parts("s", "t", None), url=url)


@pytest.mark.parametrize(
    ("rcpt", "url", "reason"),
    [
        ("ada@example.org\r\nBcc: eve@example.org", "", "the recipient's address has control characters"),
        ("ada@example.org,eve@example.org", "", "the recipient's address has more than one address"),
        ("ada@example.org", "https://shop.example/" + "x" * 990, "the unsubscribe URL is too long"),
    ],
)
def test_an_error_concerns_one_mail(rcpt: str, url: str, reason: str) -> None:
    """An invalid recipient affects only its own mail, and the error does not contain the address."""
    with pytest.raises(RenderError, match=reason) as caught:
        write(compile_mail(Parts("s", "t", None), url=url), rcpt=rcpt)
    assert caught.value.__context__ is None
    assert "ada" not in str(caught.value)


def test_an_invalid_message_id_is_rejected() -> None:
    """A Message-ID cannot start a new header."""
    with pytest.raises(RenderError, match="Message-ID"):
        compile_mail(Parts("s", "t", None)).write(
            rcpt="ada@example.org", message_id="<a@b>\r\nBcc: <eve@example.org>", date=NOON, attributes={}, coupons={}
        )


ADDRESSES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "ada", "ä", "a.", '"a b"', "Ada <ada"]),
    st.sampled_from(
        ["@example.org", "@ö.example", "@", "", "@example.org,eve", ">", "\n", "\r\nBcc: ", "\0", "\u2028", " "]
    )
    | st.text(max_size=4),
    st.sampled_from(["", "@example.org", "eve@example.org", ">", "\n", "\r\n", ".", "\r\n.\r\n"]),
)


@given(ADDRESSES | st.text(max_size=20), st.sampled_from(["", UNSUBSCRIBE]))
def test_any_recipient_is_one_address_or_no_mail(rcpt: str, url: str) -> None:
    """Text in place of an address cannot add a recipient, a header or a command."""
    try:
        envelope = write(compile_mail(Parts("s", "t", None), url=url), rcpt=rcpt)
    except RenderError as error:
        assert "recipient's address" in str(error)
        return
    assert envelope.rcpt_to.isprintable()
    unquoted = re.sub(r'^"(?:[^"\\]|\\.)*"(?=@)|(?<=@)\[[\w.:]+\]$', "", envelope.rcpt_to)
    assert unquoted.count("@") == 1
    assert not set(unquoted) & set(' ,;:<>"()[]\\')
    expected = write(compile_mail(Parts("s", "t", None), url=url), rcpt="x@y.org").data
    head = envelope.data.partition(b"\r\n\r\n")[0]
    assert re.findall(rb"^[\w-]+:", head, re.MULTILINE) == re.findall(rb"^[\w-]+:", expected, re.MULTILINE)
    assert f"\r\nTo: {envelope.rcpt_to}\r\n".encode() in head
    assert envelope.utf8 == (not envelope.rcpt_to.isascii())


# --- non-ASCII addresses ---------------------------------------------------------------------------------------------


def test_a_non_ascii_recipient_needs_smtputf8() -> None:
    """The To header contains a non-ASCII address in UTF-8 (RFC 6532); the rest of the mail is unchanged."""
    envelope = write(compile_mail(Parts("s", "Grüße\n", None), url=UNSUBSCRIBE), rcpt="jürgen@bücher.example")
    assert (envelope.rcpt_to, envelope.utf8) == ("jürgen@xn--bcher-kva.example", True)
    for wire in (envelope.wire(eight_bit=True), envelope.wire(eight_bit=False)):
        assert "\r\nTo: jürgen@xn--bcher-kva.example\r\n".encode() in wire
        assert b"who=j%C3%BCrgen%40xn--bcher-kva.example&" in wire
    assert b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n.\r\n" in envelope.wire(eight_bit=True)


def test_an_ascii_recipient_needs_no_smtputf8() -> None:
    """Mails with non-ASCII names, texts and domains need no SMTPUTF8, so every relay accepts them."""
    envelope = write(
        compile_mail(Parts("Grüße", "Grüße", None), sender="Bücher <a@bücher.example>"), rcpt="a@ö.example"
    )
    assert (envelope.rcpt_to, envelope.utf8) == ("a@xn--nda.example", False)
    assert envelope.wire(eight_bit=False).isascii()


# --- the date --------------------------------------------------------------------------------------------------------


def test_the_date_is_that_of_the_mail() -> None:
    """The Date header is right for each mail, although the text of a date is cached per second and time zone."""
    email = compile_mail(Parts("s", "t", None))
    berlin = timezone(timedelta(hours=1))
    dates = [NOON, NOON + timedelta(seconds=0.9), NOON + timedelta(seconds=1), NOON.astimezone(berlin)]
    shown = [
        parse(email.write(rcpt="ada@example.org", message_id="<1@b>", date=date, attributes={}, coupons={}))["Date"]
        for date in dates
    ]
    assert shown == [
        "Fri, 20 Mar 2026 12:00:00 +0000",
        "Fri, 20 Mar 2026 12:00:00 +0000",
        "Fri, 20 Mar 2026 12:00:01 +0000",
        "Fri, 20 Mar 2026 13:00:00 +0100",
    ]


# --- envelopes -------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.sampled_from(".ab"), max_size=4), max_size=6))
def test_a_plain_envelope_is_dot_stuffed_on_the_wire_only(lines: list[str]) -> None:
    """Dots are stuffed on the wire only (RFC 5321 4.5.2).

    So no line can be mistaken for the end of the mail, and the recipient gets the original.
    """
    data = "".join(f"{line}\r\n" for line in lines).encode("ascii")
    envelope = Envelope.plain("a@example.org", "b@example.org", data)
    wire = envelope.wire(eight_bit=False)
    assert wire.endswith(b".\r\n")
    assert b"." not in wire.split(b"\r\n")[:-2]
    assert envelope.data == data
