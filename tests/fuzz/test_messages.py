"""Arbitrary messages are either rejected, with one line per problem, or rendered within limits."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from coupons.addresses import AddressError
from coupons.mail import EmailError, File, compile_email
from coupons.templates.rendering import MAX_RENDERED, Coupon, Parts, RenderError, Template, TemplateError
from tests.fuzz.fuzzing import fuzzed

CODE, NAME = "SPRING-7K2", "Zoë"
PIECES = st.sampled_from([
    "{{", "}}", "{%", "%}", "{#", "#}", "{{-", "-}}", "{%-", "-%}", "{%+", "if", "elif", "else", "endif", "raw",
    "endraw", "for", "in", "set", "macro", "include", "block", "is", "not", "defined", "undefined", "and", "or", "~",
    "|", "upper", "default", "urlencode", "int", "e", "safe", "a", "b", "coupon", "has_coupon", '("spring-10")', "(",
    ")", "[", "]", ",", ".", "+", "*", "**", "<", "==", '"', "'", "\\", "\\x00", "\\ud800", "9" * 30, "9" * 5_000,
    "1e999", "0x", "true", "none", "self", "__class__", "\n", "\r\n", " ", "  \n", "\0", "\ud800", "\u2028", "ä", "=",
    "{{ a }}", '{{ coupon("spring-10") }}', "{% if a %}", "{% endif %}", '{% if has_coupon("spring-10") %}',
    "{% raw %}", "{% endraw %}", "{{ a|default(b) }}", "{{ a ~ b }}", ".", "\n.", "--", "<p>", "&",
    "{{ a if b else a }}", "x" * 1_000,
])  # fmt: skip
SOURCES = st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join)
REPEATED = st.tuples(PIECES, PIECES, st.integers(1, 20_000), st.sampled_from(["{{ ", "{% if ", "", "{{ a"])).map(
    lambda drawn: drawn[3] + (drawn[0] + drawn[1]) * (drawn[2] if len(drawn[0] + drawn[1]) < 40 else 3) + " a }}"
)
FIELDS = {*("from", "mime-version", "to", "subject", "date", "message-id", "content-type", "content-transfer-encoding")}
VALUES = st.sampled_from([NAME, "", "{{ b }}", "<b>", "\n.\n", "\r\nBcc: eve@example.org", "x" * 5_000])


def compile_or_none(subject: str, text: str, html: str | None) -> Template | None:
    """Compile a message. Returns None if it is rejected; then each problem must be one line."""
    try:
        return Template(Parts(subject, text, html))
    except TemplateError as error:
        assert error.problems
        assert all(problem and "\n" not in problem for problem in error.problems)
        str(error).encode()
        return None


@fuzzed(2)
@given(SOURCES, SOURCES, st.none() | SOURCES, VALUES)
def test_any_message_is_rejected_or_becomes_a_mail(subject: str, text: str, html: str | None, value: str) -> None:
    """A rendered mail respects the length limit and has only the expected fields, each once."""
    template = compile_or_none(subject, text, html)
    if template is None:
        return
    attributes = dict.fromkeys(template.names.required, value)
    coupons = {name: Coupon(CODE, is_code=True) for name in template.names.lists}
    try:
        rendered = template.render(attributes, coupons)
        compiled = compile_email(template=template, sender="Shop <shop@example.org>")
        envelope = compiled.write(
            rcpt="ada@example.org", message_id="<1@example.org>", date=datetime.now(UTC), attributes=attributes,
            coupons=coupons,
        )  # fmt: skip
        wire = envelope.wire(eight_bit=False)
    except RenderError as error:
        assert CODE not in str(error)
        assert NAME not in str(error)
        return
    assert sum(map(len, rendered.by_name().values())) <= MAX_RENDERED
    assert wire.endswith(b"\r\n.\r\n")
    assert wire.isascii()
    assert b"\r\n.\r\n" not in wire[:-3].replace(b"\r\n..\r\n", b"")
    fields = [name.lower() for name in message_from_bytes(envelope.data, policy=policy.compat32)]
    assert sorted(set(fields)) == sorted(fields)
    assert {*fields} <= FIELDS


@fuzzed(0.2)
@example("{{ " + "a ~ " * 60_000 + "a }}")
@example("{% if a %}" + "{% elif a %}" * 9_000 + "{% endif %}")
@example("{{ a }}" * 140_000)
@example("{{ " + "9" * 5_000 + " }}")
@example("\ud800\0{{ a }}")
@given(REPEATED)
def test_repetitive_sources_do_not_crash(source: str) -> None:
    """Deep, long and wide sources are rejected or rendered within seconds."""
    template = compile_or_none("s", source, None)
    if template is not None:
        try:
            template.render(dict.fromkeys(template.names.required, "x"), {})
        except RenderError:
            return


FIELD_TEXTS = st.lists(
    st.sampled_from([
        "X-A", "Subject", "content-type", "a", " ", ":", "\r\n", "\n", "\0", "\ud800", "ä", "=?utf-8?q?a?=",
        "{address}", "{message_id}", "{id}", "https://", "mailto:", "shop.example", "<", ">", "x" * 1_200, "\u2028",
        "@", "@example.org", "image/png", "; charset=utf-8", "text/csv", "logo.png", "..", "/",
    ]),
    max_size=5,
).map("".join)  # fmt: skip
SETTINGS = st.fixed_dictionaries(
    {
        "headers": st.dictionaries(FIELD_TEXTS, FIELD_TEXTS, max_size=2),
        "unsubscribe_url": st.none() | FIELD_TEXTS,
        "bounce_to": st.none() | FIELD_TEXTS,
        "files": st.lists(st.builds(File, FIELD_TEXTS, FIELD_TEXTS, st.just(b"x"), inline=st.booleans()), max_size=2),
    }
)


@fuzzed(2)
@given(SETTINGS)
def test_any_settings_are_rejected_or_give_a_whole_mail(chosen: dict[str, Any]) -> None:
    """Headers, URLs, addresses and file names cannot end a header field or start another one."""
    template = Template(Parts("s", "t", '<img src="cid:logo.png">'))
    try:
        envelope = compile_email(template=template, sender="shop@example.org", **chosen).write(
            rcpt="ada@example.org", message_id="<1@example.org>", date=datetime.now(UTC), attributes={}, coupons={}
        )
    except (EmailError, AddressError, RenderError) as error:
        str(error).encode()
        return
    assert envelope.mail_from.isprintable()
    assert envelope.mail_from.count("@") == 1
    email = message_from_bytes(envelope.data, policy=policy.compat32)
    names = {name.lower() for name, _ in email.items()}
    assert names <= FIELDS | {"list-unsubscribe", "list-unsubscribe-post"} | {
        name.lower() for name in chosen["headers"]
    }
    assert max(map(len, envelope.data.split(b"\r\n"))) <= 998
    assert len([part for part in email.walk() if part.get_filename()]) == len(chosen["files"])
