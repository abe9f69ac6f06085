"""The reader of recipients from CSV files."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.addresses import Address, AddressError, parse_address
from coupons.attributes import CONTROL, MAX_ATTRIBUTE_CHARS, attribute_name
from coupons.files import recipient_reader
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.recipient_reader import CheckedRecipients, RecipientReader, column_names
from coupons.files.rejections import Reason, Rejected, rejections_csv

DETECTED = FileFormat()

ADDRESSES = [
    "a@example.org",
    " A.B@Example.org ",
    "jürgen@example.org",
    "a@köln.de",
    "",
    " ",
    "a@b",
    "a@b.de\n",
    "x" * 65 + "@b.de",
]
ADDRESS_LIKE = st.text("aZ9.-_+@@ ü", max_size=14) | st.from_regex(recipient_reader._PLAIN_ADDRESS, fullmatch=True)
VALUES = st.text(st.sampled_from("Aü \"\\;/\n\0\x7f\u200d\u00a0日\ufffd=+'"), max_size=4) | st.sampled_from(
    ["x" * 1_000, "x" * 1_001]
)


def read(text: str, file_format: FileFormat = DETECTED, piece: int = 7) -> tuple[RecipientReader, CheckedRecipients]:
    reader = RecipientReader(file_format, "customers.csv")
    data = text.encode(errors="surrogatepass")
    batches = [reader.feed(data[start : start + piece]) for start in range(0, len(data), piece)] + [reader.finish()]
    return reader, CheckedRecipients(
        [line for batch in batches for line in batch.lines],
        [key for batch in batches for key in batch.keys],
        [address for batch in batches for address in batch.addresses],
        [attributes for batch in batches for attributes in batch.attributes],
        [rejected for batch in batches for rejected in batch.rejected],
        sum(batch.blank for batch in batches),
    )


def people(text: str, file_format: FileFormat = DETECTED) -> list[tuple[str, dict[str, str]]]:
    checked = read(text, file_format)[1]
    assert checked.keys == [address.lower() for address in checked.addresses]
    return list(zip(checked.addresses, map(json.loads, checked.attributes), strict=True))


def reasons(text: str) -> list[tuple[int, Reason]]:
    return [(each.line, each.reason) for each in read(text)[1].rejected]


def rows(text: str) -> list[Mapping[str, str] | None]:
    return [each.row for each in read(text)[1].rejected]


def error(text: str, column: str | int | None = None) -> str:
    with pytest.raises(FileError) as caught:
        read(text, FileFormat(column=column))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_is_a_recipient_with_attributes() -> None:
    """One column is the address and every other column is an attribute. White space around values is removed."""
    reader, checked = read('First Name;E-Mail;Größe\r\n Ada ;Ada@Example.org; \r\n\r\nJürgen;j@example.org;"4;2"\r\n')
    assert reader.attributes == ["first_name", "groesse"]
    assert checked == CheckedRecipients(
        [2, 4],
        ["ada@example.org", "j@example.org"],
        ["Ada@Example.org", "j@example.org"],
        ['{"first_name":"Ada","groesse":""}', '{"first_name":"Jürgen","groesse":"4;2"}'],
        [],
        1,
    )


@pytest.mark.parametrize(
    "header",
    ["email", "E-Mail", "Mail", "EMAIL ADDRESS", "email_address", "E-Mail-Adresse", "Emailadresse", "Mailadresse"],
)
def test_the_address_column_is_detected_by_its_name(header: str) -> None:
    """The address column is detected by its English or German name, and a message prints it as {{ email }}."""
    assert people(f"name,{header}\nAda,a@example.org\n") == [("a@example.org", {"name": "Ada"})]


@pytest.mark.parametrize("column", ["contact", 1, "1"])
def test_the_address_column_can_be_specified(column: str | int) -> None:
    """The address column can be specified by name or number, for example if no known name is found."""
    text = "Contact,name\na@example.org,Ada\n"
    assert people(text, FileFormat(column=column)) == [("a@example.org", {"name": "Ada"})]


def test_a_file_of_addresses_alone_is_enough() -> None:
    """A file may have no column except the address: attributes are optional."""
    assert read("email\na@example.org\n\n")[1] == CheckedRecipients(
        [2], ["a@example.org"], ["a@example.org"], ["{}"], [], 1
    )


def test_an_invalid_row_is_rejected_with_its_reason() -> None:
    """An invalid row is recorded with its line number, address and reason. The other rows are accepted."""
    text = (
        "email;name\n"
        ";Ada\n"
        "a@example.org, b@example.org;Ada\n"
        "a@example.org\n"
        "a@example.org;Ada;x\n"
        f"a@example.org;{'x' * 1_001}\n"
        'a@example.org;"A\nda"\n'
        '"a@example.org\n";Ada\n'
        f"b@example.org; {'x' * 1_000} \n"
    )
    assert reasons(text) == [
        (2, Reason.NO_ADDRESS),
        (3, Reason.BAD_ADDRESS),
        (5, Reason.COLUMNS),
        (6, Reason.LONG_ATTRIBUTE),
        (7, Reason.CONTROL),
        (9, Reason.BAD_ADDRESS),
    ]
    checked = read(text)[1]
    assert checked == read(text, piece=10_000)[1]
    assert checked.lines == [4, 11]
    assert checked.rejected[1].value == "a@example.org, b@example.org"


def test_a_rejected_address_is_shown_the_same_however_it_is_cut() -> None:
    """A rejected address is shown without leading spaces, whether the fast path or the csv module has read it."""
    text = "email;name\n  nobody ;Ada\n  ;Bob\n"
    values = [each.value for each in read(text)[1].rejected]
    assert values == [each.value for each in read(text, piece=10_000)[1].rejected] == ["nobody ", ""]


def test_blank_rows_are_only_counted() -> None:
    """Blank rows are counted but not rejected, even if a spreadsheet left its separators in them."""
    checked = read("\nemail;name\n\n;\n  \n ; \n")[1]
    assert checked == CheckedRecipients([], [], [], [], [], 5)


@pytest.mark.parametrize("name", ["می\u200cگل", "👩\u200d🚒", "Zoë", "O'Neill", "=Ada", "李小龍"])
def test_names_in_any_script_are_attributes(name: str) -> None:
    """Attributes may contain joiners, which are parts of letters in some scripts; codes may not."""
    assert people(f"email,name\na@example.org,{name}\n") == [("a@example.org", {"name": name})]


@given(st.lists(st.tuples(st.sampled_from(ADDRESSES) | ADDRESS_LIKE, VALUES, VALUES), min_size=1, max_size=8))
def test_a_row_is_checked_independently(rows: list[tuple[str, str, str]]) -> None:
    """The fast path by columns and the check row by row give the same result."""
    checked = read("email;a;b\n" + "".join(map(csv_row, rows)) + "\n", piece=1 << 20)[1]
    accepted = dict(
        zip(checked.lines, zip(checked.addresses, checked.keys, checked.attributes, strict=True), strict=True)
    )
    rejected = {each.line: each.reason for each in checked.rejected}
    line = 2
    for row in rows:
        match expected(*row):
            case Reason() as reason:
                assert rejected.pop(line) == reason
            case None:
                pass
            case address, key, attributes:
                found = accepted.pop(line)
                assert (found[0], found[1], json.loads(found[2])) == (address, key, attributes)
        line += 1 + "".join(row).count("\n")
    assert not accepted
    assert not rejected
    assert checked.blank == 1 + sum(expected(*row) is None for row in rows)


def csv_row(row: tuple[str, ...]) -> str:
    return ";".join('"' + cell.replace('"', '""') + '"' if set(cell) & set('";\n') else cell for cell in row) + "\n"


def expected(cell: str, *values: str) -> Reason | tuple[str, str, dict[str, str]] | None:
    """The expected result for a row, computed without the reader."""
    stripped = [value.strip() for value in values]
    if not cell.strip():
        return Reason.NO_ADDRESS if any(stripped) else None
    try:
        address = parse_address(cell)
    except AddressError:
        return Reason.BAD_ADDRESS
    if any(len(value) > MAX_ATTRIBUTE_CHARS for value in stripped):
        return Reason.LONG_ATTRIBUTE
    if any(map(CONTROL, stripped)) or "\ufffd" in "".join(stripped):
        return Reason.CONTROL
    return address.address, address.key, {"a": stripped[0], "b": stripped[1]}


@given(ADDRESS_LIKE)
def test_the_fast_path_accepts_only_what_the_parser_accepts(text: str) -> None:
    """An address that the fast path accepts has the same address and key from the parser."""
    if recipient_reader._PLAIN_ADDRESS.fullmatch(text):
        assert parse_address(text) == Address(text, text.lower())


def test_a_reader_describes_the_format() -> None:
    """After reading the header, a reader describes the format of its file without showing any cell."""
    reader, _ = read("name;E-Mail\r\nAda;a@example.org\r\n")
    assert reader.description == 'csv, separator ";", column 2, with a header, utf-8'
    assert not RecipientReader(DETECTED).description


# --- re-imported rows ------------------------------------------------------------------------------------------------


def test_a_rejected_row_is_kept_whole() -> None:
    """A rejected row is kept by column name. A row of another width has unknown columns and is kept as one text."""
    assert rows("Name;email\nAda;nobody\nBob;\n=1;a@example.org;2\n") == [
        {"email": "nobody", "name": "Ada"},
        {"email": "", "name": "Bob"},
        {"email": "=1\ufffda@example.org\ufffd2"},
    ]


def test_a_cell_of_a_rejected_row_can_be_stored_and_shown() -> None:
    """In kept cells, invisible characters become U+FFFD, except joiners in names.

    A long value is cut, but stays long enough to be rejected again.
    """
    text = f"email;a;b\na@b.de;{'x' * 1_002};\0y\na\u200bb@b.de;می\u200cگل;\n"
    assert rows(text) == [
        {"email": "a@b.de", "a": "x" * 1_000 + "…", "b": "\ufffdy"},
        {"email": "a\ufffdb@b.de", "a": "می\u200cگل", "b": ""},
    ]


@given(st.lists(st.tuples(st.sampled_from(ADDRESSES) | ADDRESS_LIKE, VALUES, VALUES), min_size=1, max_size=8))
def test_unfixed_rows_are_rejected_again_and_fixed_rows_keep_their_attributes(
    cells: list[tuple[str, str, str]],
) -> None:
    """A re-imported row is rejected again for the same reason.

    A fixed row keeps each attribute unchanged, except one that was the cause of the rejection.
    """
    reader = RecipientReader(DETECTED)
    reader.feed(b"email;a;b\n")
    rejected = reader.feed("".join(map(csv_row, cells)).encode(errors="surrogatepass")).rejected
    again = reimport(rejected)
    assert not again.addresses
    assert [each.reason for each in again.rejected] == [each.reason for each in rejected]
    assert [each.row for each in again.rejected] == [each.row for each in rejected]
    fixed = reimport([replace(each, value="fixed@example.org") for each in rejected])
    kept = [each.row for each in rejected if each.reason in {Reason.NO_ADDRESS, Reason.BAD_ADDRESS} and each.row]
    accepted = [json.loads(attributes) for attributes in fixed.attributes]
    assert accepted == [
        {"a": row["a"], "b": row["b"]} for row in kept if not recipient_reader._violation([row["a"], row["b"]])
    ]


def reimport(rejected: list[Rejected]) -> CheckedRecipients:
    reader, checked = read("".join(rejections_csv(rejected, ("email", "a", "b"))), piece=1_000)
    assert reader.attributes == ["a", "b"]
    return checked


def test_line_and_reason_columns_of_a_report_are_not_attributes() -> None:
    """The columns line and reason of a report are ignored when blank rows are detected and attributes are counted."""
    reader, checked = read("Line;email;name;REASON\n3;a@example.org;Ada;x\n4;;;y\n")
    assert (reader.attributes, checked.attributes, checked.blank) == (["name"], ['{"name":"Ada"}'], 1)
    many = "".join(f"a{number};" for number in range(100))
    assert len(read(f"line;email;{many}reason\n")[0].attributes) == 100


def test_attributes_may_be_named_line_and_reason() -> None:
    """Only a first column "line" together with a last column "reason" is ignored; elsewhere these are attributes."""
    text = "line;email;line;reason;reason\n3;a@example.org;A;B;x\n"
    assert people(text) == [("a@example.org", {"line": "A", "reason": "B"})]
    assert people("line;email\n3;a@example.org\n") == [("a@example.org", {"line": "3"})]
    assert people("email;reason\na@example.org;x\n") == [("a@example.org", {"reason": "x"})]


def test_only_a_report_has_its_escaped_formulas_restored() -> None:
    """The ' before a formula is removed only in a report. In any other file it belongs to the value."""
    assert people("email;phone\na@example.org;'+49 1\n") == [("a@example.org", {"phone": "'+49 1"})]
    text = "line;email;phone;reason\n3;'+a@example.org; '+49 1;x\n"
    assert people(text) == [("+a@example.org", {"phone": "+49 1"})]


@pytest.mark.parametrize(
    ("row", "reason"), [("a@b.de;J\ufffdrgen", Reason.CONTROL), ("a\ufffd@b.de;", Reason.BAD_ADDRESS)]
)
def test_values_damaged_earlier_are_rejected(row: str, reason: Reason) -> None:
    """A value with U+FFFD, by which another program has replaced a lost letter, is rejected: no mail should show it."""
    assert reasons(f"email;name\n{row}\n") == [(2, reason)]


# --- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("First Name", "first_name"),
        (" Straße / Nr. ", "strasse_nr"),
        ("Größe (cm)", "groesse_cm"),
        ("Gro\u0308\u00dfe", "groesse"),
        ("Prénom", "prenom"),
        ("2nd name", "_2nd_name"),
        ("already_fine", "already_fine"),
        ("Kunden-Nr", "kunden_nr"),
        ("имя", "imya"),
        ("Фамилия", "familiya"),
        ("Όνομα", "onoma"),
        ("姓名", "xingming"),
        ("Kay\u0131t no", "kayit_no"),
        ("Imię i nazwisko", "imie_i_nazwisko"),
        ("?", ""),
    ],
)
def test_a_header_becomes_a_name_that_a_template_can_use(header: str, name: str) -> None:
    """Umlauts are spelled out, and each run of characters except letters and digits becomes one underscore."""
    assert attribute_name(header) == name


@given(st.text(max_size=30))
def test_any_header_becomes_a_usable_name_or_none(header: str) -> None:
    """A header becomes a usable name or an empty text, and converting the name again does not change it."""
    name = attribute_name(header)
    assert not name or (name.isascii() and name.isidentifier() and name == name.lower())
    assert attribute_name(name).lstrip("_") == name.lstrip("_")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name;city\nAda;Rome\n", "no column is named email; specify the address column (the columns are 1 'name'"),
        ("email;mail\na@b.de;b@b.de\n", "ambiguous column name (1, 2): use its number"),
        ("email;;city\na@b.de;x;y\n", "column 2 needs a name in Latin letters"),
        ("email;?\na@b.de;x\n", "column 2 needs a name in Latin letters"),
        ("email;First Name;first-name\na@b.de;x;y\n", "columns 2 and 3 have the same name 'first_name'; rename one"),
        ("email;Coupon\na@b.de;x\n", "column 2: the name 'coupon' is reserved"),
        ("email;has coupon\na@b.de;x\n", "column 2: the name 'has_coupon' is reserved"),
        ("email;In\na@b.de;x\n", "column 2: the name 'in' is reserved"),
        (f"email;{'x' * 51}\na@b.de;x\n", "the name of column 2 exceeds the limit of 50 characters"),
        ("email" + "".join(f";a{n}" for n in range(101)) + "\n", "102 columns exceed the limit of 100 attributes"),
        ("", "customers.csv is empty"),
    ],
)
def test_a_header_that_templates_cannot_use_is_rejected(text: str, reason: str) -> None:
    """The error is one line that contains the column and the remedy, and it comes before any recipient is accepted."""
    message = error(text)
    assert message.startswith("customers.csv")
    assert reason in message


def test_an_attribute_cannot_be_named_like_the_address() -> None:
    """No attribute may be named email: {{ email }} is the mailed address even if another column is specified."""
    assert "column 2: the name 'email' is reserved" in error("work;Email\na@b.de;b@b.de\n", column="work")


def test_a_file_without_a_header_is_rejected() -> None:
    """A file without a header is rejected, or its first recipient would be lost. The error shows no address."""
    message = error("ada@b.de;Ada\nbob@b.de;Bob\n", column=1)
    assert "the first line must be a header row, but contains an address" in message
    assert "ada" not in message
    assert "ada" not in error("ada@b.de;Ada\nbob@b.de;Bob\n")


def test_a_hundred_attributes_are_accepted() -> None:
    """A file may have a hundred attributes in addition to the address."""
    assert len(column_names(["email", *(f"a{number}" for number in range(100))])) == 101
