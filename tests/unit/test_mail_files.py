import tracemalloc
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage, MIMEPart
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.mail import MAX_ENCODED, MAX_LINE, EmailError, Envelope, File, compile_email
from coupons.templates.rendering import Parts, Template

HTML = '<p>Grüße</p><img src="cid:logo.png">'
LOGO = File("logo.png", "image/png", b"\x89PNG\r\n\x1a\n", inline=True)
TERMS = File("terms.pdf", "application/pdf", b"%PDF-1.4 " * 100)


def write(*files: File, text: str | None = "Grüße", html: str | None = HTML) -> Envelope:
    email = compile_email(template=Template(Parts("s", text, html)), sender="shop@example.org", files=files)
    return email.write(
        rcpt="ada@example.org", message_id="<7@example.org>", date=datetime(2026, 3, 20, 12, tzinfo=UTC),
        attributes={}, coupons={},
    )  # fmt: skip


def parse(envelope: Envelope, *, eight_bit: bool = False) -> EmailMessage:
    wire = envelope.wire(eight_bit=eight_bit)
    assert max(map(len, wire.split(b"\r\n"))) <= MAX_LINE
    email = message_from_bytes(wire.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n."), policy=default)
    assert isinstance(email, EmailMessage)
    assert not [part.defects for part in email.walk() if part.defects]
    return email


def outline(email: MIMEPart) -> object:
    """The nested content types of a mail."""
    if not email.is_multipart():
        return email.get_content_type()
    return (email.get_content_subtype(), *map(outline, email.iter_parts()))


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        (
            write(LOGO, TERMS),
            ("mixed", ("related", ("alternative", "text/plain", "text/html"), "image/png"), "application/pdf"),
        ),
        (write(LOGO), ("related", ("alternative", "text/plain", "text/html"), "image/png")),
        (write(LOGO, TERMS, text=None), ("mixed", ("related", "text/html", "image/png"), "application/pdf")),
        (write(TERMS, html=None), ("mixed", "text/plain", "application/pdf")),
        (write(TERMS, html="x"), ("mixed", ("alternative", "text/plain", "text/html"), "application/pdf")),
        (write(html="x"), ("alternative", "text/plain", "text/html")),
        (write(html=None), "text/plain"),
    ],
)
def test_a_mail_has_only_the_levels_it_needs(envelope: Envelope, expected: object) -> None:
    """No multipart level contains a single part.

    Mail programs show the text, or the HTML with its images, and list the attachments.
    """
    assert outline(parse(envelope)) == expected
    assert outline(parse(envelope, eight_bit=True)) == expected
    body = parse(envelope).get_body(("plain", "html"))
    assert body is not None
    assert body.get_content().endswith(("Grüße\r\n", '.png">\r\n'))


def test_html_references_its_images() -> None:
    """The HTML finds an image by its Content-ID (RFC 2392), and the mail names the type of its body part (RFC 2387)."""
    email = parse(write(LOGO))
    image = next(part for part in email.walk() if part.get_content_maintype() == "image")
    assert image["Content-ID"] == "<logo.png>"
    assert image.get_content_disposition() == "inline"
    assert email.get_param("type") == "multipart/alternative"
    assert parse(write(LOGO, text=None)).get_param("type") == "text/html"


def test_levels_around_8bit_text_are_declared_8bit() -> None:
    """Multipart levels around 8-bit text are declared 8bit (RFC 2045 6.4); in an ASCII mail they declare nothing."""
    email = parse(write(LOGO, TERMS), eight_bit=True)
    encodings = [part["Content-Transfer-Encoding"] for part in email.walk()]
    assert encodings == ["8bit", "8bit", "8bit", "8bit", "8bit", "base64", "base64"]
    encodings = [part["Content-Transfer-Encoding"] for part in parse(write(LOGO, TERMS)).walk()]
    assert encodings == [None, None, None, "quoted-printable", "quoted-printable", "base64", "base64"]


NAMES = st.text(st.characters(exclude_categories=["C", "Zs", "Zl", "Zp"], exclude_characters="/\\:"), max_size=60).map(
    "a{}".format
)


@given(st.dictionaries(NAMES, st.binary(max_size=2_000), max_size=4))
def test_files_arrive_byte_for_byte(files: dict[str, bytes]) -> None:
    """An attachment arrives with its name and its unchanged content."""
    email = parse(write(*(File(name, "application/octet-stream", content) for name, content in files.items()), LOGO))
    arrived = {part.get_filename(): part.get_content() for part in email.iter_attachments()}
    arrived.pop("logo.png", None)
    assert arrived == files


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (File("", "image/png", b""), "the name must be a file name"),
        (File("..", "image/png", b""), "the name must be a file name"),
        (File("../a", "image/png", b""), "the name must be a file name"),
        (File("c:\\a", "image/png", b""), "the name must be a file name"),
        (File('a"\r\nBcc: eve@example.org', "image/png", b""), "the name must be a file name"),
        (File("a\0.png", "image/png", b""), "the name must be a file name"),
        (File("a\u202egnp.exe", "image/png", b""), "the name must be a file name"),
        (File("ä" * 128, "image/png", b""), "exceeds the limit of 255 bytes"),
        (File("a.png", "", b""), "the content type must be of the form image/png"),
        (File("a.png", "image", b""), "the content type must be of the form image/png"),
        (File("a.png", "image/png\r\nBcc: eve@example.org", b""), "the content type must be of the form image/png"),
        (File("a.png", "image/png; name=x", b""), "the content type must be of the form image/png"),
        (File("a.eml", "message/rfc822", b""), "the content type must be of the form image/png"),
        (File("a", "Multipart/mixed", b""), "the content type must be of the form image/png"),
        (File("a.css", "text/css", b"", inline=True), "only images can be inline"),
        (File("a b.png", "image/png", b"", inline=True), "the name of an inline file consists of ASCII letters"),
        (File("a>.png", "image/png", b"", inline=True), "the name of an inline file consists of ASCII letters"),
        (File("logo.png", "image/png", b""), "duplicate name"),
        (File("b.png", "image/png", b"", inline=True), "not shown by the HTML"),
        (File("a.bin", "application/zip", bytes(MAX_ENCODED // 4 * 3)), "the files take"),
    ],
)
def test_an_unsuitable_file_is_rejected(file: File, reason: str) -> None:
    """A message with a dangerous or unusable file is not compiled, and the reason is one line."""
    with pytest.raises(EmailError, match=reason) as caught:
        write(LOGO, file)
    assert "Bcc" not in str(caught.value).replace("\\r\\nBcc", "")
    assert all(line.isprintable() for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    "html",
    [
        '<img src="cid:none.png">',
        "<img src='CID:none.png'>",
        "<img src=cid:none.png>",
        "<b style='a:url(cid:none.png)'>",
    ],
)
def test_a_missing_image_is_reported(html: str) -> None:
    """Missing and unused images are all reported at once, so that no recipient sees an empty frame."""
    with pytest.raises(EmailError) as caught:
        write(LOGO, html=html)
    assert str(caught.value).splitlines() == [
        'html: "cid:none.png" refers to no inline file',
        "file 'logo.png': not shown by the HTML",
    ]


def test_mails_share_their_files() -> None:
    """200 mails in flight hold a file of one megabyte in memory only once."""
    email = compile_email(
        template=Template(Parts("s", "{{ name }}", None)), sender="shop@example.org",
        files=[File("a.bin", "application/octet-stream", bytes(1 << 20))],
    )  # fmt: skip
    tracemalloc.start()
    envelopes = [
        email.write(
            rcpt="ada@example.org", message_id="<7@example.org>", date=datetime(2026, 3, 20, 12, tzinfo=UTC),
            attributes={"name": "x"}, coupons={},
        )
        for _ in range(200)
    ]  # fmt: skip
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(envelopes) == 200
    assert held < 1 << 20


def test_the_repr_of_a_file_hides_its_content() -> None:
    """Debug output does not contain the megabytes of a file."""
    assert "PNG" not in repr(LOGO)
