"""What may be a coupon code, and what a list may be called."""

import itertools
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.files import codes
from coupons.files.code_reader import CodeReader, FileFormat
from coupons.files.codes import (
    MAX_CODE_CHARS,
    MAX_SHOWN_CHARS,
    Checked,
    InvalidName,
    Reason,
    Rejected,
    cell_text,
    check,
    csv_cell,
    list_name,
    reject,
    rejections_csv,
    streamed_rejections_csv,
)

ANY_TEXT = st.text(st.characters(codec=None), max_size=30) | st.text("A1'=+-@,;| \t\"", max_size=8)
FORMULA = re.compile("(^|[;,|\t])[-=+@\t\r\uff1d]")


def reason_against(code: str) -> Reason | None:
    checked = check([1], [code])
    return checked.rejected[0].reason if checked.rejected else None


# --- the check of a code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        *("A", "a-b_C9", "-A", "SPRING 10", "ABCD-1234/5", "a.b", "A#1", "1E5", "12E11", "1.5", "1E-5", "N/A1", "www"),
        *("MAR-01", "1-MAR", "1-mar", "1-3", "01.03.2026", "41-Mar", "Marc-01", "A-Mar-01", "www2.a", "00042"),
        *("=A", "50% off", "$5", "{A}", "[A]", "%A%", "O'Hara", "Ä-ß", "גשם", "X" * MAX_CODE_CHARS, "ÄÖ" * 100),
    ],
)
def test_what_a_shop_may_well_make_is_a_code(code: str) -> None:
    """It is taken as it is: nothing but the shop decides what a code means."""
    assert check([7], [code]) == Checked([7], [code], [], 0)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("X" * (MAX_CODE_CHARS + 1), Reason.TOO_LONG),
        ("A\x00B", Reason.CONTROL),
        ("A\tB", Reason.CONTROL),
        ("A\nB", Reason.CONTROL),
        ("A\x7fB", Reason.CONTROL),
        ("A\u200bB", Reason.CONTROL),  # zero-width space
        ("A\u200b", Reason.CONTROL),
        ("\ufeffA", Reason.CONTROL),  # byte order mark of a second file
        ("A\u202eB", Reason.CONTROL),  # right-to-left override
        ("A\u00adB", Reason.CONTROL),  # soft hyphen
        ("A\ud800B", Reason.CONTROL),  # lone surrogate
        ("A\ue000B", Reason.CONTROL),  # private use
        ("A\u2028B", Reason.CONTROL),  # line separator
        ("A\u3164B", Reason.CONTROL),  # a filler that looks like nothing
        ("A\ufe0fB", Reason.CONTROL),  # variation selector
        ("A\ufffdB", Reason.CONTROL),  # replacement of what was lost before
        ("A  B", Reason.SPACES),
        ("A\u00a0B", Reason.SPACES),
        ("1.2E+11", Reason.EXCEL),
        ("1,23457E+11", Reason.EXCEL),
        ("1E+15", Reason.EXCEL),
        ("4e+21", Reason.EXCEL),
        ("#NAME?", Reason.EXCEL),
        ("#REF!", Reason.EXCEL),
        ("#BEZUG!", Reason.EXCEL),
        ("#N/A", Reason.EXCEL),
        ("#####", Reason.EXCEL),
        ("1-Mar", Reason.EXCEL),
        ("Mar-01", Reason.EXCEL),
        ("01. Mrz", Reason.EXCEL),
        ("https://shop.example/A1", Reason.URL),
        ("see http://a", Reason.URL),
        ("WWW.shop.example", Reason.URL),
        ("mailto:a@b.de", Reason.URL),
        ("{{ code }}", Reason.PLACEHOLDER),
        ("{% code %}", Reason.PLACEHOLDER),
        ("${code}", Reason.PLACEHOLDER),
        ("<%code%>", Reason.PLACEHOLDER),
        ("%%code%%", Reason.PLACEHOLDER),
        ("[[code]]", Reason.PLACEHOLDER),
        ("*|CODE|*", Reason.PLACEHOLDER),
    ],
)
def test_what_can_be_no_code_is_rejected_with_its_reason(code: str, reason: Reason) -> None:
    """One reason for each line, whatever stands around it."""
    assert reason_against(code) == reason
    checked = check([1, 2, 3], ["A1", f" {code} ", "B2"])
    assert (checked.lines, checked.codes) == ([1, 3], ["A1", "B2"])
    assert [(each.line, each.reason) for each in checked.rejected] == [(2, reason)]


def test_white_space_around_a_code_is_dropped() -> None:
    """Of any kind: spreadsheets leave no-break spaces."""
    assert check([1, 2], [" A1\t", "\u00a0B 2\u3000"]).codes == ["A1", "B 2"]


def test_blank_lines_are_only_counted() -> None:
    """They are neither codes nor mistakes."""
    assert check([1, 2, 3], ["", " \t", "A1"]) == Checked([3], ["A1"], [], 2)


@given(st.lists(ANY_TEXT))
def test_every_line_ends_in_one_place(values: list[str]) -> None:
    """It is a code, rejected or blank; codes are as the shop wrote them, but for the white space around."""
    checked = check(range(1, len(values) + 1), values)
    assert sorted([*checked.lines, *(each.line for each in checked.rejected)]) == [
        line for line, value in enumerate(values, 1) if value.strip()
    ]
    assert checked.blank == sum(not value.strip() for value in values)
    for line, code in zip(checked.lines, checked.codes, strict=True):
        assert code == values[line - 1].strip() or "'" in values[line - 1]


@given(st.lists(ANY_TEXT))
def test_a_code_is_judged_alone(values: list[str]) -> None:
    """Whether a batch is plain as a whole makes no difference to any of its lines."""
    together = check(range(len(values)), values)
    alone = [check([line], [value]) for line, value in enumerate(values)]
    assert together.codes == [code for each in alone for code in each.codes]
    assert together.rejected == [rejected for each in alone for rejected in each.rejected]


@given(st.from_regex(codes._PLAIN, fullmatch=True) | st.text("aZ9-_. /wMarÄ+Ee", max_size=12))
def test_what_passes_at_a_glance_is_against_no_rule(text: str) -> None:
    """The quick look at a batch takes nothing that the rules would refuse."""
    if codes._PLAIN.fullmatch(text):
        assert codes._against(text) is None


@given(ANY_TEXT.filter(lambda text: "'" not in text))
def test_a_code_that_was_taken_is_taken_again_as_it_is(text: str) -> None:
    """Checking is stable: the same file imported twice brings the same codes."""
    codes = check([1], [text]).codes
    assert check([1] * len(codes), codes).codes == codes


# --- rejected lines ------------------------------------------------------------------------------------------------


@given(ANY_TEXT, st.sampled_from(Reason))
def test_a_rejected_value_can_be_stored_and_shown(text: str, reason: Reason) -> None:
    """Postgres takes neither NUL nor surrogates, a terminal no escape sequences, a person sees no zero-width space."""
    value = reject(1, text, reason).value
    assert value.isprintable()
    assert len(value) == len(text)
    value.encode()


def test_a_rejected_value_is_cut() -> None:
    """At more than a code's length, so that the rest cannot be imported by mistake."""
    value = reject(1, "X" * 60_000, Reason.TOO_LONG).value
    assert value == "X" * (MAX_SHOWN_CHARS - 1) + "…"
    assert reason_against(value) == Reason.TOO_LONG


def test_every_reason_has_a_sentence() -> None:
    """The value is stored, the sentence shown; both are in the type."""
    assert Reason("too_long") is Reason.TOO_LONG
    assert str(Reason.TOO_LONG) == "too_long"
    assert Reason.TOO_LONG.sentence == "longer than 200 characters"
    assert len({reason.sentence for reason in Reason}) == len(Reason)


def test_rejected_lines_become_a_csv_file() -> None:
    """With line, value and reason, in the form that spreadsheets open with umlauts."""
    rejected = [Rejected(3, 'Ä "1"', Reason.SENT), Rejected(5, "x", Reason.IN_LIST)]
    assert "".join(rejections_csv(rejected)).encode() == (
        "\ufeffline;code;reason\r\n"
        '3;"Ä ""1""";"has been sent already"\r\n'
        '5;"x";"is in the list already"\r\n'
    ).encode()  # fmt: skip
    assert next(rejections_csv([], columns=["email"])) == "\ufeffline;email;reason\r\n"


def test_rejected_recipients_keep_their_rows() -> None:
    """A cell for every column, empty where the row had none; the address alone where that was all that was kept."""
    rejected = [
        Rejected(3, "nobody", Reason.BAD_ADDRESS, {"phone": "+49 1", "email": "nobody", "first_name": 'Ä "1"'}),
        Rejected(5, "x", Reason.COLUMNS, {"email": "x"}),
    ]
    _, first, second = rejections_csv(rejected, ("email", "first_name", "phone"))
    assert first == f'3;"nobody";"Ä ""1""";"\'+49 1";"{Reason.BAD_ADDRESS.sentence}"\r\n'
    assert second == f'5;"x";"";"";"{Reason.COLUMNS.sentence}"\r\n'
    _, line = rejections_csv([Rejected(7, "y", Reason.BAD_ADDRESS)], ["email"])
    assert line == f'7;"y";"{Reason.BAD_ADDRESS.sentence}"\r\n'


@given(st.text("'=+-@,;|A\uff1d", max_size=8) | st.text(max_size=20))
def test_a_cell_is_read_back_exactly(text: str) -> None:
    """Also where it was made harmless, and where it had a ' of its own."""
    assert cell_text(csv_cell(text)[1:-1].replace('""', '"')) == text


async def test_rejected_lines_that_are_on_their_way_become_the_same_file() -> None:
    """From the database they come in batches."""
    rejected = [Rejected(3, "=Ä", Reason.PROMISED), Rejected(5, "x", Reason.NOT_IN_LIST)]

    async def on_their_way() -> AsyncIterator[Rejected]:
        for each in rejected:
            yield each

    assert [line async for line in streamed_rejections_csv(on_their_way())] == list(rejections_csv(rejected))


def test_rejected_lines_are_written_one_by_one() -> None:
    """So that millions of them need no memory: a line is out before the next is asked for."""
    asked: list[int] = []

    def rejected() -> Iterator[Rejected]:
        for line in itertools.count(1):
            asked.append(line)
            yield Rejected(line, "x", Reason.BOUND)

    lines = rejections_csv(rejected())
    assert next(lines) == "\ufeffline;code;reason\r\n"
    assert not asked
    assert next(lines) == '1;"x";"belongs to a recipient"\r\n'
    assert asked == [1]


@pytest.mark.parametrize(
    "value", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1+1", "\uff1d1", "A;=1+1", "A|=1", "A,=1", "A\t=1", "\t=1"]
)
def test_a_spreadsheet_runs_no_formula(value: str) -> None:
    """Neither where a cell begins with one, nor where the spreadsheet of another country cuts it."""
    line = list(rejections_csv([reject(1, value, Reason.IN_LIST)]))[1]
    cell = line.split(";", 1)[1].rsplit(";", 1)[0].strip('"')
    assert not FORMULA.search(cell)


@given(st.lists(ANY_TEXT.filter(lambda text: bool(text.strip()))))
def test_a_mended_file_can_be_imported_again(values: list[str]) -> None:
    """What was a code comes back as exactly that code; what was none is rejected again unless it is mended."""
    before = check(range(len(values)), values)
    as_codes = [reject(line, code, Reason.IN_LIST) for line, code in zip(before.lines, before.codes, strict=True)]
    reader = CodeReader(FileFormat(), "rejected.csv")
    data = "".join(rejections_csv(as_codes + before.rejected)).encode()
    after = [reader.feed(data), reader.finish()]
    assert [code for batch in after for code in batch.codes] == before.codes
    assert sum(len(batch.rejected) for batch in after) == len(before.rejected)


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [("spring-10", "spring-10"), (" Spring 10 ", "spring 10"), ("2026_a.b", "2026_a.b"), ("A" * 50, "a" * 50)],
)
def test_a_name_is_stored_stripped_and_in_lower_case(text: str, name: str) -> None:
    """So that two spellings of one name are one list."""
    assert list_name(text) == name
    assert list_name(list_name(text)) == name


@pytest.mark.parametrize("text", ["", "  ", "-a", ".a", "a/b", "a\nb", "a  b", "frühling", "a;b", "{{a}}"])
def test_other_names_are_refused(text: str) -> None:
    """In one line that says what a name must look like."""
    with pytest.raises(InvalidName, match=r"^a name is letters a-z, digits, single spaces"):
        list_name(text)


def test_a_name_has_at_most_50_characters() -> None:
    """As the reference manual says."""
    with pytest.raises(InvalidName, match="at most 50 characters"):
        list_name("a" * 51)
