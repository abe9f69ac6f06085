"""The codes of a relay's reply, which logs and reasons show instead of its text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.smtp.replies import NO_REPLY, reply_codes


@pytest.mark.parametrize(
    ("reply", "codes"),
    [
        ("550 5.7.1 <ada@example.org>: Relay access denied", "550 5.7.1"),
        ("554 5.7.1", "554 5.7.1"),
        ("450-4.2.0 <ada@example.org>: greylisted", "450 4.2.0"),
        ("550 no such user ada@example.org", "550"),
        ("421", "421"),
        ("421 ", "421"),
        ("552 5.7.509 see the report", "552 5.7.509"),
        ("250 2.0.0 ok: queued as 4711", "250 2.0.0"),
        ("354 end with a dot", "354"),
    ],
)
def test_codes_of_replies(reply: str, codes: str) -> None:
    """The basic code remains, and the enhanced code if the reply has one."""
    assert reply_codes(reply) == codes


@pytest.mark.parametrize(
    "reply",
    [
        "550 4.7.1 another class",
        "550 5.7 two numbers",
        "550 5.7.1.2 four numbers",
        "550 5.07.1 a leading zero",
        "550 5.7.1234 four digits",
        "550 5.7.1@example.org",
        "550 5.7.1: a colon",
        "550  5.7.1 two spaces",
        "550 \uff15.7.1 a digit that is not ASCII",
        "550 3.0.0",
    ],
)
def test_invalid_enhanced_codes_are_left_out(reply: str) -> None:
    """Text that only looks like an enhanced code is not shown."""
    assert reply_codes(reply) == "550"


@pytest.mark.parametrize(
    "text",
    ["", "5501 no", "55", "650 no", "560 no", "the connection was lost", " 550 no", "550\tx", "\uff15\uff15\uff10 no"],
)
def test_text_without_a_code_is_replaced(text: str) -> None:
    """Nothing of a text that is not a reply is shown."""
    assert reply_codes(text) == NO_REPLY


@given(st.one_of(st.text(), st.from_regex(r"[2-5][0-9]{2}[ -][245]?\.?[0-9]{,4}\.?[0-9]{,4}.*")))
def test_only_digits_dots_and_one_space_remain(reply: str) -> None:
    """Whatever a relay replies, its words never remain."""
    codes = reply_codes(reply)

    assert codes == NO_REPLY or re.fullmatch(r"[0-9]{3}( [245]\.[0-9]{1,3}\.[0-9]{1,3})?", codes)
    assert codes == NO_REPLY or reply.replace("-", " ", 1).startswith(codes)
