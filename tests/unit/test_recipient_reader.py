"""The reader of recipients from CSV files."""

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.addresses import Address, AddressError, parse_address
from coupons.attributes import CONTROL, MAX_ATTRIBUTE_CHARS, RESERVED, attribute_name
from coupons.files import recipient_reader
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat
from coupons.files.recipient_reader import CheckedRecipients, RecipientReader
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
VALUES = st.text(st.sampled_from("Aü \"\\;/\n\x1b\x7f\u200d\u00a0日\ufffd=+'"), max_size=4) | st.sampled_from(
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
        "a@example.org;A\0da\n"
        '"a@example\n.org\n";Ada\n'
        f"b@example.org; {'x' * 1_000} \n"
    )
    assert reasons(text) == [
        (2, Reason.NO_ADDRESS),
        (3, Reason.BAD_ADDRESS),
        (5, Reason.COLUMNS),
        (6, Reason.CONTROL),
        (7, Reason.BAD_ADDRESS),
    ]
    checked = read(text)[1]
    assert checked == read(text, piece=10_000)[1]
    assert checked.lines == [4, 10]
    assert checked.rejected[1].value == "a@example.org, b@example.org"


def test_a_rejected_address_is_shown_the_same_however_it_is_cut() -> None:
    """A rejected address is shown without spaces around it, whether the fast path or the csv module has read it."""
    text = "email;name\n  nobody ;Ada\n  ;Bob\n"
    values = [each.value for each in read(text)[1].rejected]
    assert values == [each.value for each in read(text, piece=10_000)[1].rejected] == ["nobody", ""]


def test_blank_rows_are_only_counted() -> None:
    """Blank rows are counted but not rejected, even if a spreadsheet left its separators in them."""
    checked = read("\nemail;name\n\n;\n  \n ; \n")[1]
    assert checked == CheckedRecipients([], [], [], [], [], 5)


@pytest.mark.parametrize("name", ["می\u200cگل", "👩\u200d🚒", "Zoë", "O'Neill", "=Ada", "李小龍"])
def test_names_in_any_script_are_attributes(name: str) -> None:
    """Attributes may contain joiners, which are parts of letters in some scripts; codes may not."""
    assert people(f"email,name\na@example.org,{name}\n") == [("a@example.org", {"name": name})]


BARE_VALUES = VALUES.filter(lambda text: not text.strip().startswith(("'", "=")))
"""Values without the signs of text cells, which the reader removes."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ADDRESSES) | ADDRESS_LIKE, BARE_VALUES, BARE_VALUES), min_size=1, max_size=8))
def test_a_row_is_checked_independently(rows: list[tuple[str, str, str]]) -> None:
    """The fast path by columns and the check row by row give the same result."""
    checked = read("email;a;b\n" + "".join(map(csv_row, rows)), piece=500)[1]
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
    assert checked.blank == sum(expected(*row) is None for row in rows)


def csv_row(row: tuple[str, ...]) -> str:
    return ";".join('"' + cell.replace('"', '""') + '"' if set(cell) & set('";\n') else cell for cell in row) + "\n"


def expected(cell: str, *values: str) -> Reason | tuple[str, str, dict[str, str]] | None:
    """The expected result for a row, computed without the reader."""
    stripped = [" ".join(part.strip() for part in value.split("\n") if part.strip()) for value in values]
    stripped = [value[:MAX_ATTRIBUTE_CHARS] for value in stripped]
    if not cell.strip():
        return Reason.NO_ADDRESS if any(stripped) else None
    try:
        address = parse_address(cell.strip())
    except AddressError:
        return Reason.BAD_ADDRESS
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
    assert reader.description == 'csv, separator ";", column 2, with a header, utf-8, first address a•••@example.org'
    assert not RecipientReader(DETECTED).description


# --- re-imported rows ------------------------------------------------------------------------------------------------


def test_a_rejected_row_is_kept_whole() -> None:
    """A rejected row is kept by column name. Cells beyond the columns of the header are kept behind them."""
    rejected = read("Name;email\nAda;nobody\nBob;\n=1;a@example.org;2\n")[1].rejected
    assert [(each.row, each.extra) for each in rejected] == [
        ({"email": "nobody", "name": "Ada"}, ()),
        ({"email": "", "name": "Bob"}, ()),
        ({"email": "a@example.org", "name": "=1"}, ("2",)),
    ]


def test_a_cell_of_a_rejected_row_can_be_stored_and_shown() -> None:
    """In kept cells, invisible characters become U+FFFD, except joiners in names. A long value is cut."""
    text = f"email;a;b\na@b.de;{'x' * 1_002};\0y\na\u200bb@b.de;می\u200cگل;\n"
    assert rows(text) == [
        {"email": "a@b.de", "a": "x" * 1_000, "b": "\ufffdy"},
        {"email": "a\ufffdb@b.de", "a": "می\u200cگل", "b": ""},
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ADDRESSES) | ADDRESS_LIKE, VALUES, VALUES), min_size=1, max_size=8))
def test_unfixed_rows_are_rejected_again_and_fixed_rows_keep_their_attributes(
    cells: list[tuple[str, str, str]],
) -> None:
    """A re-imported row is rejected again for the same reason.

    A fixed row keeps each attribute unchanged, except one that was the cause of the rejection.
    """
    rejected = read("email;a;b\n" + "".join(map(csv_row, cells)), piece=500)[1].rejected
    again = reimport(rejected)
    assert not again.addresses
    assert [each.reason for each in again.rejected] == [each.reason for each in rejected]
    assert [each.row for each in again.rejected] == [each.row for each in rejected]
    fixed = reimport([replace(each, row={**(each.row or {}), "email": "fixed@example.org"}) for each in rejected])
    kept = [each.row for each in rejected if each.reason in {Reason.NO_ADDRESS, Reason.BAD_ADDRESS} and each.row]
    accepted = [json.loads(attributes) for attributes in fixed.attributes]
    assert accepted == [
        {"a": row["a"], "b": row["b"]} for row in kept if not recipient_reader._has_damage([row["a"], row["b"]])
    ]


def converted(cell: str) -> str:
    """The cell as a spreadsheet saves it."""
    if re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?(E[+-]?[0-9]+)?", cell, re.IGNORECASE):
        return f"{float(cell.replace(',', '.')):g}"
    return cell.upper() if cell.lower() in ("true", "false") else cell


ANSI = ["cp1252", "cp1250", "cp1251"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(ADDRESSES) | ADDRESS_LIKE, VALUES, VALUES, st.sampled_from(["", "", "x", "1"])),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(ANSI),
    st.sampled_from([";", ",", "\t"]),
)
def test_unfixed_rows_are_rejected_again_after_other_programs_saved_them(
    cells: list[tuple[str, str, str, str]], encoding: str, separator: str
) -> None:
    """A spreadsheet drops the quotes and the byte order mark, fills up all rows and converts numbers.

    An editor replaces letters that ANSI does not have.
    """
    rejected = read("email;a;b\n" + "".join(map(csv_row, cells)), piece=500)[1].rejected
    report = "".join(rejections_csv(rejected, ("email", "a", "b"))).removeprefix("\ufeff")
    saved = io.StringIO()
    lines = [[converted(cell) for cell in row] for row in csv.reader(io.StringIO(report), delimiter=";")]
    width = max(map(len, lines))
    csv.writer(saved, delimiter=separator).writerows(row + [""] * (width - len(row)) for row in lines)
    again = read(saved.getvalue().encode(encoding, "replace").decode(encoding), piece=1_000)[1]
    assert not again.addresses
    assert len(again.rejected) == len(rejected)


@pytest.mark.parametrize("address", ["ada@example.org", "jörg@example.org", "+ada@example.org", '"a; b"@example.org'])
def test_an_unfixed_duplicate_is_rejected_again(address: str) -> None:
    """A duplicate of a report does not replace the attributes of the first line, until its address is fixed."""
    duplicate = Rejected(3, address, Reason.DUPLICATE, {"email": address, "a": "x", "b": ""})
    assert [each.reason for each in reimport([duplicate]).rejected] == [Reason.DUPLICATE]
    report = "".join(rejections_csv([duplicate], ("email", "a", "b")))
    line = report.splitlines()[1].split(";", 1)
    fixed = report.replace(line[1], '"bob@example.org";"x";"";' + line[1].rpartition(";")[2], 1)
    assert read(fixed)[1].addresses == ["bob@example.org"]


def test_a_row_with_too_many_cells_is_rejected_again_until_they_are_removed() -> None:
    """The cells beyond the columns are behind the reason. The row is accepted once they are removed."""
    rejected = read("email;name\na@example.org;Ada;Lovelace\n")[1].rejected
    report = "".join(rejections_csv(rejected, ("email", "name")))
    assert [each.reason for each in read(report)[1].rejected] == [Reason.COLUMNS]
    assert people(report.replace(';"Lovelace"', "")) == [("a@example.org", {"name": "Ada"})]


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
    """The ' before a formula inside a value is removed only in a report. In any other file it belongs to the value."""
    assert people("email;phone\na@example.org;1,'+49 1\n") == [("a@example.org", {"phone": "1,'+49 1"})]
    text = "line;email;phone;reason\n3;'+a@example.org; '+49 1;x\n"
    assert people(text) == [("+a@example.org", {"phone": "+49 1"})]


def test_the_signs_of_text_cells_are_removed_from_values() -> None:
    """Excel's formula and apostrophe are no part of a value. Quotes, and an apostrophe before a word, are."""
    reader, checked = read(
        "email;v\n"
        + "".join(
            f"a{n}@example.org;{v}\n"
            for n, v in enumerate(['="007"', "'007", "'+49 171", "'s-Hertogenbosch", "\u201cx\u201d", "'90er"])
        )
    )
    values = [json.loads(each)["v"] for each in checked.attributes]
    assert values == ["007", "007", "+49 171", "'s-Hertogenbosch", "\u201cx\u201d", "'90er"]
    assert reader.notices == ['the signs of text cells (="\u2026", \') were removed from 3 values']


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
        ("name;city\nAda;Rome\n", "specify the address column with --column (the columns are 1 'name', 2 'city')"),
        ("Kontakt;Ort\na@b.de;x\n", "(the columns are 1 'Kontakt', 2 'Ort'; column 1 contains addresses)"),
        ("email;mail\na@b.de;b@b.de\n", "columns 1 'email', 2 'mail' may all be the address column: specify one"),
        ("WELCOMEADA\nWELCOMEBOB\n", "(the file has 1 column)"),
        ("Ada Lovelace;x\nBob;y\n", "(the file has 2 columns)"),
        ("SPRING-HTMVWCA4\nSPRING-9XY3AB2K\n", "these look like codes: did you mean `coupons import --list`?"),
        ("", "customers.csv is empty"),
    ],
)
def test_a_header_without_one_address_column_is_refused(text: str, reason: str) -> None:
    """The error is one line that contains the option, and the columns unless the first line may have values."""
    message = error(text)
    assert not any(secret in message for secret in ("WELCOME", "Lovelace", "HTMVWCA4"))
    assert message.startswith("customers.csv")
    assert reason in message


@pytest.mark.parametrize(
    ("header", "names", "notice"),
    [
        ("email;;city", ["city"], "column 2 was left out because it has no name"),
        ("email;???;city", ["column_2", "city"], ""),
        ("email;First Name;first-name", ["first_name", "first_name_2"], "column 3 'first-name' is first_name_2"),
        ("email;a;a;a_2;a", ["a", "a_3", "a_2", "a_4"], "column 3 'a' is a_3, column 5 'a' is a_4"),
        (
            "email;Coupon;x",
            ["x"],
            "column 'Coupon' was left out because it has a reserved name, unless --columns renames it",
        ),
        ("email;;city;", ["city"], "columns left out because they have no name (by number): 2, 4"),
        ("email;has coupon;In;x", ["x"], "have a reserved name, unless --columns renames them: 'has coupon', 'In'"),
        (f"email;{'x' * 51};y", ["y"], "has a name of more than 50 characters, unless --columns renames it"),
        ("email;Имя;姓名;Größe", ["imya", "xingming", "groesse"], "transliterated: 'Имя' is imya, '姓名' is xingming"),
        ("email" + "".join(f";a{n}" for n in range(102)), [f"a{n}" for n in range(100)], "left out: 'a100', 'a101'"),
    ],
)
def test_columns_that_cannot_be_attributes_are_left_out_and_listed(header: str, names: list[str], notice: str) -> None:
    """No recipient is lost over the name of a column, and a notice names each column that is left out or renamed."""
    reader, checked = read(f"{header}\na@b.de{';x' * header.count(';')}\n")
    assert reader.attributes == names
    assert json.loads(checked.attributes[0]) == dict.fromkeys(names, "x")
    assert any(notice in each for each in reader.notices) if notice else not reader.notices


def test_an_attribute_cannot_be_named_like_the_address() -> None:
    """No attribute is named email: {{ email }} is the mailed address even if another column is specified."""
    reader, checked = read("work;Email\na@b.de;b@b.de\n", FileFormat(column="work"))
    assert (reader.attributes, checked.addresses) == ([], ["a@b.de"])
    assert "column 'Email' was left out because it has a reserved name, unless --columns renames it" in reader.notices


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (("city", "Prénom"), ["prenom", "city"]),
        (("Prénom=first_name",), ["first_name"]),
        (("prenom=first_name", "CITY"), ["first_name", "city"]),
        (("In=region", "4=note"), ["region", "note"]),
        (("a=b=c",), ["c"]),
        (("a=b",), ["a_b"]),
        (("email", "city"), ["city"]),
        (("Tags",), ["tags", "tags_2"]),
        (("Tags=label",), ["label", "label_2"]),
    ],
)
def test_columns_are_chosen_and_renamed_in_the_order_of_the_header(columns: tuple[str, ...], names: list[str]) -> None:
    """`columns` chooses the attributes by name, without regard to case, or by number, and `=` renames them."""
    text = "Email;Prénom;In;;City;Tags;Tags;a=b\na@b.de;1;2;3;4;5;6;7\n"
    reader, _ = read(text, FileFormat(columns=columns))
    assert reader.attributes == names


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (("town",), "no column 'town': the columns are 1 'email', 2 'In', 3 'City'"),
        (("9",), "no column '9': the columns are"),
        (("In",), "column 'In' has a reserved name: choose it as \"In=name\""),
        (("City=First Name",), "'First Name' is not an attribute's name: use a-z, 0-9 and _, such as first_name"),
        (("City=coupon",), "column 'City' has a reserved name"),
        (("email=mail",), "column 'email' contains the addresses: its attribute is always email"),
    ],
)
def test_a_choice_of_columns_that_is_impossible_is_refused(columns: tuple[str, ...], reason: str) -> None:
    """A chosen column that does not exist or cannot become an attribute is an error that names the remedy."""
    with pytest.raises(FileError) as caught:
        read("email;In;City\na@b.de;x;y\n", FileFormat(columns=columns))
    assert reason in str(caught.value)


def test_a_file_without_a_header_is_refused() -> None:
    """A table without a header is refused, or its first recipient would be lost. The error shows no address."""
    message = error("ada@b.de;Ada\nbob@b.de;Bob\n", column=1)
    assert "a header row must be here, but the line contains an address; without a header, use --no-header" in message
    assert "ada" not in message
    assert "ada" not in error("ada@b.de;Ada\nbob@b.de;Bob\n")


def test_a_table_without_a_header_is_read_on_request() -> None:
    """With `header=False`, the address column is found by its content, and columns are chosen by number."""
    text = "Ada;ada@b.de;x\nBob;bob@b.de;y\n"
    assert people(text, FileFormat(header=False)) == [("ada@b.de", {}), ("bob@b.de", {})]
    chosen = FileFormat(header=False, columns=("1=first_name",))
    assert people(text, chosen) == [("ada@b.de", {"first_name": "Ada"}), ("bob@b.de", {"first_name": "Bob"})]


# --- values ----------------------------------------------------------------------------------------------------------


def test_line_breaks_tabs_and_long_values_lose_no_recipient() -> None:
    """Line breaks and tabs become one blank, long values are cut, and notices count both."""
    text = f'email\tnote\tcity\na@b.de\t"1 High Street \r\n\r\n Leeds"\t"x\ty"\nb@b.de\t{"x" * 1_001}\tz\n'
    reader, checked = read(text)
    assert list(map(json.loads, checked.attributes)) == [
        {"note": "1 High Street Leeds", "city": "x y"},
        {"note": "x" * 1_000, "city": "z"},
    ]
    assert reader.notices == [
        "line breaks and tabs became blanks in 2 values",
        "note: 1 value was cut to 1,000 characters",
    ]


CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Co", "Cn"), include_characters="\t\n,;|\"' "),
    max_size=12,
)
HEADERS = st.lists(
    st.text("abcdeäöüßéèłžčñ", min_size=1, max_size=8), min_size=1, max_size=4, unique_by=attribute_name
).filter(lambda names: not any(len(attribute_name(name)) < 1 or RESERVED & {attribute_name(name)} for name in names))
DIALECTS = st.fixed_dictionaries({
    "delimiter": st.sampled_from(";,\t|"),
    "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    "lineterminator": st.sampled_from(["\r\n", "\n"]),
})  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = draw(HEADERS)
    rows = draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), min_size=1, max_size=6))
    return names, rows


@given(tables(), DIALECTS, st.integers(0, 4))
def test_a_table_of_any_dialect_comes_back_exactly(
    table: tuple[list[str], list[list[str]]], dialect: dict[str, Any], place: int
) -> None:
    """Each value that a program has written as CSV is the attribute, except for blanks around it and line breaks."""
    names, rows = table
    place = min(place, len(names))
    written = io.StringIO()
    lines = [[*names[:place], "E-Mail", *names[place:]]] + [
        [*row[:place], f"a{number}@example.org", *row[place:]] for number, row in enumerate(rows)
    ]
    csv.writer(written, **dialect).writerows(lines)
    reader, checked = read(written.getvalue(), piece=1_000)
    assert reader.attributes == list(map(attribute_name, names))
    accepted = dict(zip(checked.addresses, map(json.loads, checked.attributes), strict=True))
    damaged = {f"a{number}@example.org" for number, row in enumerate(rows) if "\ufffd" in "".join(row)}
    assert accepted == {
        f"a{number}@example.org": dict(zip(reader.attributes, map(on_one_line, row), strict=True))
        for number, row in enumerate(rows)
        if f"a{number}@example.org" not in damaged
    }
    assert {each.value for each in checked.rejected} == damaged


def on_one_line(value: str) -> str:
    return " ".join(part.strip() for part in re.split(r"[\t\n\u2028\u2029]", value) if part.strip())
