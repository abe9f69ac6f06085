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


def parsed(envelope: Envelope, *, eight_bit: bool = False) -> EmailMessage:
    wire = envelope.wire(eight_bit=eight_bit)
    assert max(map(len, wire.split(b"\r\n"))) <= MAX_LINE
    email = message_from_bytes(wire.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n."), policy=default)
    assert isinstance(email, EmailMessage)
    assert not [part.defects for part in email.walk() if part.defects]
    return email


def outline(email: MIMEPart) -> object:
    """The content types, as deep as the parts are."""
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
def test_levels_are_those_that_are_needed(envelope: Envelope, expected: object) -> None:
    """Mail programs show text or HTML, the images in it, and list the attachments; no level holds a single part."""
    assert outline(parsed(envelope)) == expected
    assert outline(parsed(envelope, eight_bit=True)) == expected
    body = parsed(envelope).get_body(("plain", "html"))
    assert body is not None
    assert body.get_content().endswith(("Grüße\r\n", '.png">\r\n'))


def test_html_finds_its_images() -> None:
    """RFC 2392 and RFC 2387: an image is found by its id, and the body by its type."""
    email = parsed(write(LOGO))
    image = next(part for part in email.walk() if part.get_content_maintype() == "image")
    assert image["Content-ID"] == "<logo.png>"
    assert image.get_content_disposition() == "inline"
    assert email.get_param("type") == "multipart/alternative"
    assert parsed(write(LOGO, text=None)).get_param("type") == "text/html"


def test_levels_around_8bit_text_say_so() -> None:
    """RFC 2045 6.4: what holds 8bit text is 8bit itself; the same mail in ASCII says nothing."""
    email = parsed(write(LOGO, TERMS), eight_bit=True)
    encodings = [part["Content-Transfer-Encoding"] for part in email.walk()]
    assert encodings == ["8bit", "8bit", "8bit", "8bit", "8bit", "base64", "base64"]
    encodings = [part["Content-Transfer-Encoding"] for part in parsed(write(LOGO, TERMS)).walk()]
    assert encodings == [None, None, None, "quoted-printable", "quoted-printable", "base64", "base64"]


NAMES = st.text(st.characters(exclude_categories=["C", "Zs", "Zl", "Zp"], exclude_characters="/\\:"), max_size=60).map(
    "a{}".format
)


@given(st.dictionaries(NAMES, st.binary(max_size=2_000), max_size=4))
def test_files_come_out_byte_for_byte(files: dict[str, bytes]) -> None:
    """Name and content of an attachment are what the shop gave."""
    email = parsed(write(*(File(name, "application/octet-stream", content) for name, content in files.items()), LOGO))
    arrived = {part.get_filename(): part.get_content() for part in email.iter_attachments()}
    arrived.pop("logo.png", None)
    assert arrived == files


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (File("", "image/png", b""), "the name must be one of a file"),
        (File("..", "image/png", b""), "the name must be one of a file"),
        (File("../a", "image/png", b""), "the name must be one of a file"),
        (File("c:\\a", "image/png", b""), "the name must be one of a file"),
        (File('a"\r\nBcc: eve@example.org', "image/png", b""), "the name must be one of a file"),
        (File("a\0.png", "image/png", b""), "the name must be one of a file"),
        (File("a\u202egnp.exe", "image/png", b""), "the name must be one of a file"),
        (File("ä" * 128, "image/png", b""), "is longer than 255 octets"),
        (File("a.png", "", b""), "the content type must be one like image/png"),
        (File("a.png", "image", b""), "the content type must be one like image/png"),
        (File("a.png", "image/png\r\nBcc: eve@example.org", b""), "the content type must be one like image/png"),
        (File("a.png", "image/png; name=x", b""), "the content type must be one like image/png"),
        (File("a.eml", "message/rfc822", b""), "the content type must be one like image/png"),
        (File("a", "Multipart/mixed", b""), "the content type must be one like image/png"),
        (File("a.css", "text/css", b"", inline=True), "only images can be shown in the HTML"),
        (File("a b.png", "image/png", b"", inline=True), "the name of an inline file is ASCII letters"),
        (File("a>.png", "image/png", b"", inline=True), "the name of an inline file is ASCII letters"),
        (File("logo.png", "image/png", b""), "there are two of this name"),
        (File("b.png", "image/png", b"", inline=True), "the HTML does not show it"),
        (File("a.bin", "application/zip", bytes(MAX_ENCODED // 4 * 3)), "all files together take"),
    ],
)
def test_file_that_cannot_go_along_is_refused(file: File, reason: str) -> None:
    """A message with a file that harms or cannot be shown is not compiled, and the reason is one line."""
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
def test_image_that_is_missing_is_told(html: str) -> None:
    """No recipient sees the frame of a picture that is not there; all problems are told at once."""
    with pytest.raises(EmailError) as caught:
        write(LOGO, html=html)
    assert str(caught.value).splitlines() == [
        'html: "cid:none.png" names no inline file',
        "file 'logo.png': the HTML does not show it",
    ]


def test_mails_share_their_files() -> None:
    """A window of 200 mails that wait for the relay holds a file of a megabyte once."""
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


def test_file_hides_its_content() -> None:
    """Whatever prints a file by accident prints no megabytes."""
    assert "PNG" not in repr(LOGO)
