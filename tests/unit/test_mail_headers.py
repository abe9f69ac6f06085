from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import compat32, default
from email.utils import parseaddr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.addresses import AddressError
from coupons.mail import MAX_LINE, EmailError, Envelope, Mailbox, compile_email, parse_mailbox
from coupons.templates.rendering import Parts, Template

SHOP = "Shop <shop@example.org>"


def write(
    *, sender: str = SHOP, reply_to: str = "", bounce_to: str = "", url: str = "", headers: dict[str, str] | None = None
) -> Envelope:
    email = compile_email(
        template=Template(Parts("s", "t", None)), sender=sender, reply_to=reply_to, bounce_to=bounce_to,
        unsubscribe_url=url, headers=headers or {},
    )  # fmt: skip
    return email.write(
        rcpt="ada@example.org", message_id="<7@example.org>", date=datetime(2026, 3, 20, 12, tzinfo=UTC),
        attributes={}, coupons={},
    )  # fmt: skip


NAMES = {
    "no-break space": "Jean\u00a0Paul",
    "ideographic space": "山田\u3000太郎",
    "zero-width non-joiner": "نر\u200cگس",
    "zero-width joiner": "क्\u200dष",
    "right-to-left mark": "\u200fשרה\u200f",
    "emoji with joiners": "👩\u200d🚒",
}
"""Names as people have them, with the characters that only look like control characters."""


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_are_mailed_as_people_have_them(name: str) -> None:
    """A name arrives unchanged in the subject, the text, the HTML, the sender, the reply-to and a further header."""
    email = compile_email(
        template=Template(Parts("To {{ name }}", "Dear {{ name }},\n", "<p>{{ name }}</p>\n")),
        sender=f"{name} <shop@example.org>", reply_to=f'"{name}" <shop@example.org>', headers={"X-Name": name},
    )  # fmt: skip
    envelope = email.write(
        rcpt="ada@example.org", message_id="<7@example.org>", date=datetime(2026, 3, 20, 12, tzinfo=UTC),
        attributes={"name": name}, coupons={},
    )  # fmt: skip
    mail = message_from_bytes(envelope.data, policy=default)
    text, html = (part for part in mail.walk() if not part.is_multipart())
    assert mail["Subject"] == f"To {name}"
    assert (text.get_content(), html.get_content()) == (f"Dear {name},\r\n", f"<p>{name}</p>\r\n")
    assert [mail[field].addresses[0].display_name for field in ("From", "Reply-To")] == [name, name]
    assert mail["X-Name"] == name


@pytest.mark.parametrize("control", ["\0", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"])
def test_names_have_no_control_characters(control: str) -> None:
    """Neither the name of a sender nor a header may contain one."""
    with pytest.raises(AddressError, match="control characters"):
        parse_mailbox(f'"a{control}b" <shop@example.org>')
    with pytest.raises(EmailError, match="control characters"):
        write(headers={"X-Name": f"a{control}b"})


# --- mailboxes -------------------------------------------------------------------------------------------------------


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
def test_a_mailbox_is_a_name_and_an_address(text: str, mailbox: Mailbox) -> None:
    """A mailbox is parsed as mail programs write it: a name and an address."""
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
def test_an_invalid_mailbox_is_rejected(text: str) -> None:
    """A mailbox in a setting cannot add a second address or a second header."""
    with pytest.raises(AddressError):
        parse_mailbox(text)


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]) | st.just(" "), max_size=150))
def test_a_display_name_arrives_as_configured(name: str) -> None:
    """A name with umlauts, quotes, commas or emoji arrives unchanged."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    envelope = write(sender=f'"{escaped}" <shop@example.org>', reply_to="help@example.org")
    # Not the newer parser: in Python 3.11 it leaves a space between two encoded words of a name.
    shown, address = parseaddr(message_from_bytes(envelope.data, policy=compat32)["From"])
    assert (str(make_header(decode_header(shown))), address) == (name.strip(), "shop@example.org")
    head = envelope.data.partition(b"\r\nMIME-Version")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 150


@pytest.mark.parametrize("setting", ["sender", "reply_to", "bounce_to"])
def test_own_addresses_are_ascii(setting: str) -> None:
    """Our own addresses must be ASCII, so that every relay accepts the mails; only a recipient may need SMTPUTF8."""
    settings = {"sender": SHOP, "reply_to": "", "bounce_to": ""} | {setting: "büro@example.org"}
    with pytest.raises(AddressError, match="which only a recipient may have"):
        write(sender=settings["sender"], reply_to=settings["reply_to"], bounce_to=settings["bounce_to"])


def test_a_bounce_address_is_normalized() -> None:
    """Surrounding spaces and international domains of a bounce address are handled as in every other address."""
    assert write(bounce_to=" b+{id}@bücher.example ").mail_from == "b+7@xn--bcher-kva.example"
    with pytest.raises(AddressError, match="more than 64 characters"):
        write(bounce_to=f"{'b' * 60}{{id}}@example.org")


# --- additional headers ----------------------------------------------------------------------------------------------


def test_additional_headers_are_in_every_mail() -> None:
    """Every mail has the headers that are configured for mailbox providers and for the shop's tools."""
    headers = {
        "X-Campaign": "Frühling, ganz für Sie, mit allem, was der Garten in den nächsten Wochen braucht 🌷",
        "Precedence": "bulk",
        "List-Id": "Shop news <news.shop.example>",
        "Auto-Submitted": "auto-generated",
        "Feedback-ID": "spring:shop:" + "x" * 200,
        "X-Looks-Encoded": "=?utf-8?q?A=0AB?=",
    }
    email = message_from_bytes(write(headers=headers).data, policy=default)
    assert {name: email[name] for name in headers} == headers
    assert email["List-Id"] == headers["List-Id"]


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]) | st.just(" "), min_size=1, max_size=2_000))
def test_an_additional_header_is_folded(value: str) -> None:
    """Any value of an additional header becomes one field, with single spaces between words."""
    try:
        data = write(headers={"X-Note": value}).data
    except EmailError:
        assert not value.strip() or max(map(len, value.split())) > MAX_LINE - len("X-Note: ")
        return
    email = message_from_bytes(data, policy=compat32)
    assert str(make_header(decode_header(email["X-Note"].replace("\r\n", "")))) == " ".join(value.split())
    assert email.keys() == ["From", "MIME-Version", "X-Note", "To", "Subject", "Date", "Message-ID",
                            "Content-Type", "Content-Transfer-Encoding"]  # fmt: skip
    assert max(map(len, data.split(b"\r\n"))) <= MAX_LINE


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("", "x", "a name has 1 to 50 ASCII letters"),
        ("X Y", "x", "a name has 1 to 50 ASCII letters"),
        ("X:", "x", "a name has 1 to 50 ASCII letters"),
        ("X-Ä", "x", "a name has 1 to 50 ASCII letters"),
        ("X-A\r\nBcc", "eve@example.org", "a name has 1 to 50 ASCII letters"),
        ("X" * 51, "x", "a name has 1 to 50 ASCII letters"),
        ("BCC", "eve@example.org", "cannot be set"),
        ("Content-Type", "text/html", "cannot be set"),
        ("List-Unsubscribe-Post", "x", "cannot be set"),
        ("Resent-To", "eve@example.org", "cannot be set"),
        ("X-A", "a\r\nBcc: eve@example.org", "the value is empty or contains control characters"),
        ("X-A", "a\nb", "the value is empty or contains control characters"),
        ("X-A", "a\u2028b", "the value is empty or contains control characters"),
        ("X-A", "a\0b", "the value is empty or contains control characters"),
        ("X-A", "\ud800", "the value is empty or contains control characters"),
        ("X-A", " ", "the value is empty or contains control characters"),
        ("X-A", "x" * 999, "a word of the value is too long"),
    ],
)
def test_reserved_headers_are_rejected(name: str, value: str, reason: str) -> None:
    """An additional header cannot change the recipients or the structure of the mail."""
    with pytest.raises(EmailError, match=reason) as caught:
        write(headers={name: value})
    assert str(caught.value).isprintable()


def test_all_problems_of_the_settings_are_reported_at_once() -> None:
    """One error reports all problems of the settings, so that an operator can fix them in one step."""
    with pytest.raises(EmailError) as caught:
        write(url="shop.example", headers={"To": "x", "X-A": "1", "x-a": "2"})
    assert str(caught.value).splitlines() == [
        "the unsubscribe URL must be https, http or mailto; its only placeholders are {address} and {message_id}",
        "header To: cannot be set",
        "header X-A: duplicate header",
        "header x-a: duplicate header",
    ]
