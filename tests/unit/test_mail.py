import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import SMTP, compat32, default
from email.utils import parseaddr
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.addresses import AddressError
from coupons.mail import (
    MAX_LINE,
    CompiledEmail,
    EmailError,
    Envelope,
    Mailbox,
    compile_email,
    message_id,
    parse_mailbox,
)
from coupons.templates import Coupon, Parts, RenderError, Template

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


def compiled(
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


def parsed(envelope: Envelope) -> EmailMessage:
    email = message_from_bytes(envelope.data, policy=default)
    assert isinstance(email, EmailMessage)
    assert not email.defects
    return email


def content(email: EmailMessage, subtype: str) -> str | None:
    part = email.get_body((subtype,))
    return None if part is None else lines_of(part.get_content())


def lines_of(text: str) -> str:
    """`text` as MIME can keep it: one kind of line break, one at the end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n") + "\n"


def slow(parts: Parts) -> EmailMessage:
    """The same mail by the standard library's own generator and parser."""
    email = EmailMessage(policy=SMTP)
    email["Subject"] = parts.subject
    if parts.text is not None:
        email.set_content(lines_of(parts.text))
    if parts.text is None:
        email.set_content(lines_of(parts.html or ""), subtype="html")
    elif parts.html is not None:
        email.add_alternative(lines_of(parts.html), subtype="html")
    return parsed(Envelope("", "", email.as_bytes()))


# --- the bytes --------------------------------------------------------------------------------------------------------


@given(VALUES, CODES, st.sampled_from(["text", "html", "both"]))
def test_what_is_parsed_is_what_was_rendered(value: str, code: str, kind: str) -> None:
    """For any attribute and code, subject, text and HTML arrive as rendered, and as the standard library sends them."""
    text = "Dear {{ name }},\n{{ name }}: {{ coupon('spring') }}" if kind != "html" else None
    html = "<p>Dear {{ name }}, {{ coupon('spring') }}</p>\n" if kind != "text" else None
    template = Template(Parts("{{ name }} gets a voucher", text, html))
    attributes, coupons = {"name": value}, {"spring": Coupon(code, is_code=True)}
    rendered = template.render(attributes, coupons)

    email = parsed(write(compiled(template.parts), attributes=attributes, coupons=coupons))

    assert email["Subject"] == rendered.subject
    assert content(email, "plain") == (None if rendered.text is None else lines_of(rendered.text))
    assert content(email, "html") == (None if rendered.html is None else lines_of(rendered.html))
    reference = slow(rendered)
    assert content(email, "plain") == content(reference, "plain")
    assert content(email, "html") == content(reference, "html")
    assert email.get_content_type() == reference.get_content_type()


@given(VALUES, CODES)
def test_bytes_keep_to_the_rules_of_mail(value: str, code: str) -> None:
    """ASCII, CRLF and no other line breaks, no line over 998 octets, and only the headers that belong there."""
    parts = Parts("{{ name }}", "{{ name }} {{ coupon('spring') }}", "<p>{{ name }}</p>")
    email = compiled(parts, sender="Bücherladen <shop@example.org>", reply_to="help@example.org", url=UNSUBSCRIBE)
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
def test_subject_is_folded_within_78_characters(subject: str) -> None:
    """No line of a subject is longer than RFC 5322 advises, and one with encoded words not than RFC 2047 allows."""
    data = write(compiled(Parts("-{{ s }}", "x", None)), attributes={"s": subject}).data.decode("ascii")
    found = re.search(r"^Subject: .*(?:\r\n .*)*", data, re.MULTILINE)
    assert found is not None
    for line in found[0].split("\r\n"):
        assert len(line) <= (76 if "=?" in line else 78)


def test_plain_ascii_stays_readable() -> None:
    """A mail that needs no encoding has none."""
    subject = "Your voucher, dear reader, is waiting in this mail, together with all the best wishes of your shop"
    assert write(compiled(Parts(subject, "Hello\nAda\n", None))).data == (
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


def test_word_that_cannot_be_folded_is_encoded() -> None:
    """A subject of one long word keeps to the line length and arrives whole."""
    envelope = write(compiled(Parts("{{ s }}", "x", None)), attributes={"s": "x" * 2_000})
    assert parsed(envelope)["Subject"] == "x" * 2_000


def test_text_that_looks_encoded_arrives_as_it_looks() -> None:
    """An attribute cannot smuggle in what a mail program would decode."""
    envelope = write(compiled(Parts("Hi {{ s }}", "x", None)), attributes={"s": "=?utf-8?q?A=0AB?="})
    assert parsed(envelope)["Subject"] == "Hi =?utf-8?q?A=0AB?="


def test_one_click_unsubscribe_names_the_recipient() -> None:
    """RFC 8058: the URL carries who and which mail, quoted; without https there is no one-click."""
    email = parsed(write(compiled(Parts("s", "t", None), url=UNSUBSCRIBE), rcpt="a+b@example.org"))
    assert email["List-Unsubscribe"] == (
        "<https://shop.example/unsubscribe?who=a%2Bb%40example.org&mail=6138acddfd25493dab548ba9b28abedc.7%40example.org>"
    )
    assert email["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    by_mail = parsed(write(compiled(Parts("s", "t", None), url="mailto:off@example.org?subject={message_id}")))
    assert by_mail["List-Unsubscribe"].startswith("<mailto:off@example.org?subject=6138")
    assert by_mail["List-Unsubscribe-Post"] is None


def test_bounce_address_says_whose_mail_it_was() -> None:
    """The envelope's sender is the author, or an address of its own for each mail."""
    assert write(compiled(Parts("s", "t", None))).mail_from == "shop@example.org"
    email = compiled(Parts("s", "t", None), bounce_to="bounces+{id}@mail.example.org")
    assert write(email).mail_from == "bounces+6138acddfd25493dab548ba9b28abedc.7@mail.example.org"


def test_message_id_is_the_same_each_time() -> None:
    """A resend can be recognised: the id depends on sendout and delivery alone."""
    assert message_id(SENDOUT, 7, "example.org") == "<6138acddfd25493dab548ba9b28abedc.7@example.org>"


def test_envelope_hides_its_data_from_tracebacks() -> None:
    """Whatever prints an envelope by accident prints no code."""
    coupons = {"spring": Coupon("SPRING-1", is_code=True)}
    assert "SPRING-1" not in repr(write(compiled(Parts("s", '{{ coupon("spring") }}', None)), coupons=coupons))


# --- mailboxes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("shop@example.org", Mailbox("", "shop@example.org")),
        ("<shop@example.org>", Mailbox("", "shop@example.org")),
        (" Shop <shop@example.org> ", Mailbox("Shop", "shop@example.org")),
        ("Mr. O'Neil's Shop<shop@example.org>", Mailbox("Mr. O'Neil's Shop", "shop@example.org")),
        ('"Shop, \\"Best\\" Inc." <shop@example.org>', Mailbox('Shop, "Best" Inc.', "shop@example.org")),
        ("Bücher <shop@bücher.example>", Mailbox("Bücher", "shop@xn--bcher-kva.example")),
    ],
)
def test_mailbox_is_a_name_and_an_address(text: str, mailbox: Mailbox) -> None:
    """A sender is written as in any mail program."""
    assert parse_mailbox(text) == mailbox


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Shop",
        "Shop <shop>",
        "a@example.org, Shop <b@example.org>",
        "Shop <a@example.org> <b@example.org>",
        "a\nb <a@example.org>",
        '"a\nb" <a@example.org>',
        "Shop <a@example.org>\nBcc: eve@example.org",
        "Shop <a@example.org\n>",
        "a\u2028b <a@example.org>",
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    """Neither a second address nor a second header gets in by way of a setting."""
    with pytest.raises(AddressError):
        parse_mailbox(text)


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]) | st.just(" "), max_size=150))
def test_display_name_arrives_as_configured(name: str) -> None:
    """Umlauts, quotes, commas, emoji: the recipient sees the shop's name."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    email = compiled(Parts("s", "t", None), sender=f'"{escaped}" <shop@example.org>', reply_to="help@example.org")
    envelope = write(email)
    # Not by the newer parser: in Python 3.11 it leaves a blank between two encoded words of a name.
    shown, address = parseaddr(message_from_bytes(envelope.data, policy=compat32)["From"])
    assert (str(make_header(decode_header(shown))), address) == (name.strip(), "shop@example.org")
    head = envelope.data.partition(b"\r\nMIME-Version")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 150


@pytest.mark.parametrize(
    "url",
    ["shop.example/u", "javascript:alert(1)", "https://shop.example/{who}", "https://a b", "https://a>\r\nBcc: x"],
)
def test_unusable_unsubscribe_url_is_refused(url: str) -> None:
    """A wrong setting is told before the first mail."""
    with pytest.raises(EmailError, match="the unsubscribe URL must be"):
        compiled(Parts("s", "t", None), url=url)


@pytest.mark.parametrize(
    ("rcpt", "url", "reason"),
    [
        ("ada@example.org\r\nBcc: eve@example.org", "", "the recipient's address has control characters"),
        ("ada@example.org,eve@example.org", "", "the recipient's address is not one plain address"),
        ("ada@example.org", "https://shop.example/" + "x" * 990, "the unsubscribe URL is too long"),
    ],
)
def test_mail_that_cannot_be_written_is_an_error_of_its_own(rcpt: str, url: str, reason: str) -> None:
    """One bad recipient ends neither the batch nor is quoted in a log."""
    with pytest.raises(RenderError, match=reason) as caught:
        write(compiled(Parts("s", "t", None), url=url), rcpt=rcpt)
    assert caught.value.__context__ is None
    assert "ada" not in str(caught.value)


def test_foreign_message_id_is_refused() -> None:
    """A Message-ID cannot begin a header either."""
    with pytest.raises(RenderError, match="Message-ID"):
        compiled(Parts("s", "t", None)).write(
            rcpt="ada@example.org", message_id="<a@b>\r\nBcc: <eve@example.org>", date=NOON, attributes={}, coupons={}
        )
