import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.smtp.replies import MAX_LINE, MAX_LINES, OutOfStepError, ReplyReader, reply_text

CODES = st.from_regex(rb"[2-5][0-5][0-9]", fullmatch=True)
TEXTS = st.binary(max_size=40).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b"").strip())


def lines_of(code: bytes, texts: list[bytes], end: bytes) -> bytes:
    *first, last = texts
    return b"".join(code + b"-" + text + end for text in first) + code + b" " + last + end


@settings(deadline=None)  # a machine may be busy
@given(
    st.lists(st.tuples(CODES, st.lists(TEXTS, min_size=1, max_size=4)), max_size=5),
    st.sampled_from([b"\r\n", b"\n"]),
    st.lists(st.integers(1, 30)),
)
def test_replies_do_not_depend_on_how_their_bytes_are_split(
    replies: list[tuple[bytes, list[bytes]]], end: bytes, cuts: list[int]
) -> None:
    """A reply is complete when its last line is complete."""
    stream = b"".join(lines_of(code, texts, end) for code, texts in replies)
    reader, read = ReplyReader(), []
    for cut in cuts:
        read += reader.read(stream[:cut])
        stream = stream[cut:]
    read += reader.read(stream)
    assert read == [code + b" " + b" ".join(texts) for code, texts in replies]
    assert not reader.is_partial


@settings(deadline=None)  # a machine may be busy
@given(st.binary(), st.lists(st.integers(1, 10)))
def test_any_bytes_are_replies_or_out_of_step(stream: bytes, cuts: list[int]) -> None:
    """No other error is raised, and every reply begins with a code."""
    reader = ReplyReader()
    try:
        for cut in [*cuts, len(stream)]:
            assert all(reply[:3].isdigit() for reply in reader.read(stream[:cut]))
            stream = stream[cut:]
    except OutOfStepError:
        pass


@pytest.mark.parametrize(
    "stream",
    [
        b"\r\n",
        b"25\r\n",
        b"2500 ok\r\n",
        b"250_ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"260 ok\r\n",
        b" 250 ok\r\n",
        b"MAIL FROM:<a@example.org>\r\n",
        b"250-ok\r\n251 ok\r\n",
        b"250 " + b"x" * MAX_LINE,
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"250-ok\r\n" * (MAX_LINES + 1),
    ],
)
def test_an_invalid_reply_is_out_of_step(stream: bytes) -> None:
    """A code has the form of RFC 5321 4.2 and is the same on all lines; lines and replies have a maximum length."""
    with pytest.raises(OutOfStepError):
        ReplyReader().read(stream)


def test_a_reply_may_have_no_text() -> None:
    """Some relays answer RSET with a code only."""
    assert ReplyReader().read(b"250\r\n250 \r\n") == [b"250", b"250 "]


def test_the_text_of_a_reply_is_one_printable_line() -> None:
    """Control characters and invalid UTF-8 never reach a terminal."""
    assert reply_text(b"250 \x1b[31m \xff ok\t") == "250  [31m \ufffd ok"
