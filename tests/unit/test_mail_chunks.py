"""A mail assembled from chunks equals a mail encoded as a whole."""

import re
from binascii import b2a_qp
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.mail import MAX_LINE, Envelope, compile_email
from coupons.templates.analysis import Chunk, split_chunks
from coupons.templates.rendering import Coupon, Parts, RenderError, Template, TemplateError

INJECTIONS = (
    "\r\nBcc: eve@example.org\r\n\r\n", "\nBcc: eve@example.org", "\rBcc: eve@example.org", "=?utf-8?q?=0ABcc:?=",
    "%0D%0ABcc:", "\r\n.\r\nMAIL FROM:<eve@example.org>\r\n", ".", "\n.", "..\r\n.", "\u2028Bcc: x", "\u2029", "\x85",
    "\x00",
    "\x0b\x0c\x1c", "\x7f", "{{ b }}", "{% endautoescape %}", "<b>&\"'/", "=20", "=", "a \t", " \n",
    "\r", "--=_",
    "ä" * 700, "x" * 1_500, "\ufeff", "\ud800",
)  # fmt: skip
VALUES = st.sampled_from(INJECTIONS) | st.text(max_size=30) | st.text(st.sampled_from("a.\r\n =ö<"), max_size=8)
CODES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40)

TEXTS = st.sampled_from(
    (
        "Hello", " ", ".", "\n", "\n\n", "\r\n", "\r", "\n.", ".\r\n..\n", "ä", "€uro\n", "<p>", "a=b",
        "trailing \n", "\t",
        "From me\n", "x" * 80, "x" * 1_000, "ö " * 400, "\x0b", "\u2028", "}}", "%}", "#}", "{", "-",
    )
)  # fmt: skip
TAGS = st.sampled_from(
    (
        "{{ a }}", '{{ coupon("spring") }}', '{{coupon("SPRING")|urlencode}}', '{{ b|default("<z>") }}', "{{ a|e }}",
        "{{ a|upper }}", "{{ a if a else 'x' }}", "{{\n a\n}}", "{{ '{{' }}", "{{ '\n.\n' }}", "{{ '-}}' }}",
        "{{ a\r\n}}",
        "{# c #}", "{# c\n.\n #}\n", "{% raw %}{{ a }}\n.{% endraw %}", "{% raw %}{% if %}{% endraw %}\n", "{{+ a }}",
    )
)  # fmt: skip
TRIMMING = st.sampled_from(
    ("{{- a }}", "{{ a -}}", "{#- c -#}", "{%- raw -%} {{ {%- endraw %}", "{%- if a -%}\n{% endif %}")
)
LINES = st.lists(TEXTS | TAGS, max_size=3).map("".join)
SOURCES = st.recursive(
    st.lists(LINES, max_size=5).map("\n".join),
    lambda source: (
        st.builds('{{% if has_coupon("spring") %}}{}{{% else %}}{}{{% endif %}}'.format, source, source)
        | st.builds("{{%if a == 'x'%}}\n{}{{% elif b is defined %}}{}\n{{%endif%}}".format, source, source)
        | st.builds("{}\n{{{{ coupon('spring') }}}}\n{}".format, source, source)
    ),
    max_leaves=5,
)
ALL_SOURCES = SOURCES | st.builds("{}{}{}".format, SOURCES, TRIMMING, SOURCES)


def write(template: Template, attributes: dict[str, str], coupons: dict[str, Coupon]) -> Envelope:
    return compile_email(template=template, sender="shop@example.org").write(
        rcpt="ada@example.org", message_id="<7@example.org>", date=datetime(2026, 3, 20, 12, tzinfo=UTC),
        attributes=attributes, coupons=coupons,
    )  # fmt: skip


def whole_part(subtype: str, body: str) -> bytes:
    """The expected part: its text is encoded as a whole."""
    lines = body.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    content = "\r\n".join((*lines, "")).encode()
    encoding = "7bit"
    if max(map(len, lines)) > MAX_LINE or re.search(r"[^\t\r\n -~]", body):
        encoding, content = "quoted-printable", b2a_qp(content, istext=True)
    head = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode("ascii") + content


def whole_body(rendered: Parts, boundary: str) -> bytes:
    if rendered.html is None:
        return whole_part("plain", rendered.text or "")
    if rendered.text is None:
        return whole_part("html", rendered.html)
    text, html = whole_part("plain", rendered.text), whole_part("html", rendered.html)
    line = f"--{boundary}\r\n".encode("ascii")
    return b"".join((b"\r\n", line, text, b"\r\n", line, html, f"\r\n--{boundary}--\r\n".encode("ascii")))


def unstuff(wire: bytes) -> bytes:
    *lines, dot, end = wire.split(b"\r\n")
    assert (dot, end) == (b".", b"")
    assert b"." not in lines
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line or len(line) > MAX_LINE + 1 for line in lines)
    assert max(len(line.removeprefix(b".")) for line in lines) <= MAX_LINE
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)


def parse(data: bytes) -> EmailMessage:
    email = message_from_bytes(data, policy=default)
    assert isinstance(email, EmailMessage)
    assert not [part.defects for part in email.walk() if part.defects]
    return email


def lines_of(body: str) -> str:
    """`body` with uniform line breaks and one line break at the end, as MIME preserves it."""
    return body.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n") + "\n"


def bodies(email: EmailMessage) -> list[tuple[str, str]]:
    parts = [part for part in email.walk() if not part.is_multipart()]
    return [(part.get_content_type(), part.get_content().replace("\r\n", "\n")) for part in parts]


@settings(deadline=None)  # compiling a message takes long on a busy machine
@given(
    ALL_SOURCES, ALL_SOURCES, st.sampled_from(["text", "html", "both"]), VALUES, VALUES | st.none(), CODES | st.none()
)
def test_chunks_give_the_same_mail_as_the_whole(  # noqa: PLR0917 - given in this order
    one: str, two: str, kind: str, a: str, b: str | None, code: str | None
) -> None:
    """For any message, value and code, the mail made of chunks equals the mail encoded as a whole.

    They are equal byte for byte, in 7 and in 8 bits, and contain no additional content.
    """
    try:
        template = Template(Parts("{{ a }}", one if kind != "html" else None, two if kind != "text" else None))
    except TemplateError:
        return
    attributes = {"a": a} | ({} if b is None else {"b": b})
    coupons = {"spring": Coupon("none left", is_code=False) if code is None else Coupon(code, is_code=True)}
    try:
        rendered = template.render(attributes, coupons)
    except RenderError:
        with pytest.raises(RenderError):
            write(template, attributes, coupons)
        return
    try:
        envelope = write(template, attributes, coupons)
    except RenderError as error:
        # The constant text contains the code by chance.
        assert "does not print the code" in str(error)
        assert code is not None
        assert any(code in chunk.source for chunks in template.chunks.values() for chunk in chunks if not chunk.varies)
        return

    data = unstuff(envelope.wire(eight_bit=False))
    assert data == envelope.data
    assert data.isascii()
    email = parse(data)
    head, _, _ = data.partition(b"Content-Type: ")
    assert data.endswith(whole_body(rendered, email.get_boundary("")))
    assert email["Subject"] == rendered.subject
    assert [content for _, content in bodies(email)] == [
        lines_of(body) for body in (rendered.text, rendered.html) if body is not None
    ]
    assert re.findall(rb"^([\w-]+):", head, re.MULTILINE) == [
        b"From", b"MIME-Version", b"To", b"Subject", b"Date", b"Message-ID",
    ]  # fmt: skip

    in_8_bits = parse(unstuff(envelope.wire(eight_bit=True)))
    assert bodies(in_8_bits) == bodies(email)
    assert in_8_bits["Subject"] == email["Subject"]
    encodings = {part["Content-Transfer-Encoding"] for part in in_8_bits.walk()}
    assert envelope.wire(eight_bit=True).isascii() == ("8bit" not in encodings)


@settings(deadline=None)
@given(ALL_SOURCES)
def test_chunks_add_up_to_the_source(source: str) -> None:
    """Joined chunks give the source, no two adjacent chunks both vary, and constant chunks contain no template tags."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    try:
        Template(Parts("s", source, None))
    except TemplateError:
        return
    chunks = split_chunks(source)
    assert "".join(chunk.source for chunk in chunks) == source
    assert all(one.varies != other.varies for one, other in pairwise(chunks))
    assert all(chunk.source.endswith("\n") for chunk in chunks[:-1])
    assert not any(tag in chunk.source for chunk in chunks if not chunk.varies for tag in ("{{", "{%", "{#"))


def test_only_varying_chunks_are_rendered_per_recipient() -> None:
    """Lines without placeholders are rendered once. A condition is one chunk, from its first to its last line."""
    source = "Hello\n\n{{ a }}, {{ b }}\n{{ c }}\nyour\n{% if a %}\nvery\n{% endif %} own\ncode\n{# nothing #}\nis\n"
    same, varies = partial(Chunk, varies=False), partial(Chunk, varies=True)
    assert split_chunks(source) == (
        same("Hello\n\n"),
        varies("{{ a }}, {{ b }}\n{{ c }}\n"),
        same("your\n"),
        varies("{% if a %}\nvery\n{% endif %} own\n"),
        same("code\n"),
        varies("{# nothing #}\n"),
        same("is\n"),
    )
    assert split_chunks("") == ()
    assert split_chunks("a\n{{ b -}}\nc\n") == (varies("a\n{{ b -}}\nc\n"),)


def test_a_code_in_constant_text_does_not_count_as_printed() -> None:
    """A code is unused even if the constant text of the mail contains the same characters by chance."""
    template = Template(Parts("s", "WELCOME\n{% if '' %}{{ coupon('spring') }}{% endif %}\n", None))
    for render_it in (template.render, template.render_varying):
        assert render_it({}, {"spring": Coupon("WELCOME", is_code=True)}).unused == {"spring"}


def test_each_mail_keeps_its_own_code_until_it_is_sent() -> None:
    """A mail has its own code although its bytes are built late, after other mails were written, or twice."""
    template = Template(Parts("s", "{{ coupon('spring') }}", "<p>{{ coupon('spring') }}</p>"))
    email = compile_email(template=template, sender="shop@example.org")
    envelopes = [
        email.write(
            rcpt="ada@example.org", message_id="<7@example.org>", date=datetime(2026, 3, 20, 12, tzinfo=UTC),
            attributes={}, coupons={"spring": Coupon(f"CODE-{number}", is_code=True)},
        )
        for number in range(100, 150)
    ]  # fmt: skip
    for number, envelope in reversed(list(enumerate(envelopes, 100))):
        for _ in range(2):
            codes = re.findall(rb"CODE-\d+", envelope.wire(eight_bit=False))
            assert codes == [f"CODE-{number}".encode()] * 2


def test_an_error_reports_the_line_of_the_message() -> None:
    """An error contains the line in the whole source, which the marketer sees, and not the line in a chunk."""
    template = Template(Parts("s", "one\ntwo\n{{ a|int }}\n", None))
    with pytest.raises(RenderError, match="text, line 3: InvalidOperation") as caught:
        write(template, {"a": "SECRET"}, {})
    assert caught.value.__context__ is None
