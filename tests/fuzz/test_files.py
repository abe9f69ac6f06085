"""Arbitrary bytes as a file: each line is accepted, rejected or blank, or a one-line error says why reading stopped."""

import codecs
from dataclasses import dataclass
from encodings.aliases import aliases
from functools import partial

from hypothesis import assume, given
from hypothesis import strategies as st

from coupons.files.code_reader import CodeReader
from coupons.files.codes import CheckedCodes
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat, is_encoding
from coupons.files.recipient_reader import RecipientReader
from tests.fuzz.fuzzing import CUTS, cut, damaged, fuzzed

VALUE = "7K2-4QX9"
"""A code, or a part of an address. No error may contain it."""
ENCODINGS = sorted({codecs.lookup(name).name for name in aliases.values() if is_encoding(name)})
OFTEN = ("utf-8", "utf-8", "cp1252", "utf-16-le")
FORMATS = st.builds(
    FileFormat,
    kind=st.sampled_from([None, "csv"]),
    separator=st.sampled_from([None, None, ";", ",", "\t", " ", "a", "\0", "ä"]),
    encoding=st.sampled_from([*OFTEN, *ENCODINGS]),
    column=st.sampled_from([None, None, 1, 2, 0, 10_000, "code", "email", "9" * 199, "²"]),
    header=st.sampled_from([None, None, True, False]),
) | st.builds(FileFormat, kind=st.just("txt"), encoding=st.sampled_from([*OFTEN, *ENCODINGS]))
PIECES = st.sampled_from([
    VALUE, f"{VALUE}@example.org", "A", ";", ",", "\t", "|", '"', '""', "'", "=", "\n", "\r", "\r\n", "\n\n", " ", "\0",
    "email;code;name", "sep=;", "\ufeff", "\ufffd", "\u2028", "\x85", "ä", "\U0001f600", "x" * 300, "email", "Code",
    'a;"b', "1.2E+11", "{{ a }}", "line;code;reason",
])  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Files made of typical parts, often in the encoding that the reader expects."""
    text = "".join(draw(st.lists(PIECES, max_size=30)))
    mark = draw(st.sampled_from([b"", b"", b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE]))
    encoding = draw(st.sampled_from([*OFTEN, *ENCODINGS]))
    return mark + text.encode(encoding, "replace")


FILES = tables() | damaged(tables()) | st.binary(max_size=200)


@dataclass(frozen=True)
class Outcome:
    """The result of reading a file: its accepted and rejected lines, its blank lines, and the error that ended it."""

    accepted: list[tuple[int, str]]
    rejected: list[int]
    blank: int
    description: str
    error: str


def outcome(reader: CodeReader | RecipientReader, pieces: list[bytes]) -> Outcome:
    accepted: list[tuple[int, str]] = []
    rejected: list[int] = []
    blank, error = 0, ""
    steps = [*(partial(reader.feed, piece) for piece in pieces), reader.finish]
    try:
        for step in steps:
            found = step()
            accepted += zip(
                found.lines, found.codes if isinstance(found, CheckedCodes) else found.addresses, strict=True
            )
            rejected += [each.line for each in found.rejected]
            blank += found.blank
    except FileError as caught:
        error = str(caught)
    return Outcome(accepted, rejected, blank, reader.description, error)


@fuzzed()
@given(FILES, FORMATS, CUTS, st.sampled_from(["codes.txt", "codes.csv", "codes"]))
def test_any_code_file_is_read_or_rejected(data: bytes, file_format: FileFormat, cuts: list[float], name: str) -> None:
    """No line has two results, each accepted code is printable, and the result does not depend on the chunks."""
    whole = outcome(CodeReader(file_format, name), [data])
    check(whole, outcome(CodeReader(file_format, name), cut(data, cuts)))
    for _, code in whole.accepted:
        assert 1 <= len(code) <= 200
        assert code.isprintable()


@fuzzed()
@given(FILES, FORMATS, CUTS)
def test_any_recipient_file_is_read_or_rejected(data: bytes, file_format: FileFormat, cuts: list[float]) -> None:
    """No line has two results, each accepted address is one address, and the result does not depend on the chunks."""
    assume(file_format.kind != "txt" and file_format.header is not False)
    whole = outcome(RecipientReader(file_format, "people.csv"), [data])
    check(whole, outcome(RecipientReader(file_format, "people.csv"), cut(data, cuts)))
    for _, address in whole.accepted:
        assert address.count("@") == 1
        assert address.isprintable()


def check(found: Outcome, in_pieces: Outcome) -> None:
    """Check that no line has two results, and that an error is one line without a value of the file.

    A file that is read in chunks must give the same result. If the file has an error, chunks may give another error
    and more lines before it.
    """
    assert in_pieces == found or (found.error and in_pieces.error)
    assert in_pieces.accepted[: len(found.accepted)] == found.accepted
    lines = [line for line, _ in found.accepted] + found.rejected
    assert len(set(lines)) == len(lines)
    assert sorted(found.rejected) == found.rejected
    if found.error:
        assert "\n" not in found.error
        assert VALUE not in found.error
        assert len(found.error) < 2_500


@fuzzed()
@given(
    st.lists(PIECES | st.text(max_size=5), min_size=1, max_size=30),
    st.sampled_from(["utf-8", "utf-16-le", "utf-32-be"]),
)
def test_each_line_of_a_txt_file_is_counted_once(pieces: list[str], encoding: str) -> None:
    """The accepted, rejected and blank lines add up to the number of lines in the text."""
    text = "".join(pieces).encode(encoding, "replace").decode(encoding)
    found = outcome(CodeReader(FileFormat(kind="txt", encoding=encoding, header=False)), [text.encode(encoding)])
    assume(not found.error and not text.startswith(("\ufeff", "sep=")))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    assert len(found.accepted) + len(found.rejected) + found.blank == len(lines)
    assert {line for line, _ in found.accepted} | {*found.rejected} <= {*range(1, len(lines) + 1)}
