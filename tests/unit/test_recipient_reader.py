"""Recipients out of a CSV file."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.addresses import Address, AddressError, parse_address
from coupons.commands import CONTROL, MAX_ATTRIBUTE_CHARS
from coupons.files import recipient_reader
from coupons.files.code_reader import FileFormat
from coupons.files.codes import Reason, Rejected, rejections_csv
from coupons.files.decoding import FileError
from coupons.files.recipient_reader import CheckedRecipients, RecipientReader, attribute_name, column_names

UNSAID = FileFormat()

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


def read(text: str, file_format: FileFormat = UNSAID, piece: int = 7) -> tuple[RecipientReader, CheckedRecipients]:
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


def people(text: str, file_format: FileFormat = UNSAID) -> list[tuple[str, dict[str, str]]]:
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


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_row_is_a_recipient_with_attributes() -> None:
    """The address by its column, every other column an attribute; white space around is dropped."""
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
def test_the_column_of_addresses_is_known_by_its_name(header: str) -> None:
    """In English and German, in any case and spelling; it is {{ email }} in a message."""
    assert people(f"name,{header}\nAda,a@example.org\n") == [("a@example.org", {"name": "Ada"})]


@pytest.mark.parametrize("column", ["contact", 1, "1"])
def test_the_column_of_addresses_can_be_given(column: str | int) -> None:
    """By name or number, where no name is known."""
    text = "Contact,name\na@example.org,Ada\n"
    assert people(text, FileFormat(column=column)) == [("a@example.org", {"name": "Ada"})]


def test_a_file_of_addresses_alone_is_enough() -> None:
    """Recipients need no attributes."""
    assert read("email\na@example.org\n\n")[1] == CheckedRecipients(
        [2], ["a@example.org"], ["a@example.org"], ["{}"], [], 1
    )


def test_what_is_no_recipient_is_rejected_with_its_reason() -> None:
    """Line, address and reason are kept, and the rows around are taken."""
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
        (4, Reason.COLUMNS),
        (5, Reason.COLUMNS),
        (6, Reason.LONG_ATTRIBUTE),
        (7, Reason.CONTROL),
        (9, Reason.BAD_ADDRESS),
    ]
    checked = read(text)[1]
    assert checked == read(text, piece=10_000)[1]
    assert checked.lines == [11]
    assert checked.rejected[1].value == "a@example.org, b@example.org"


def test_a_refused_address_is_shown_the_same_in_any_piece() -> None:
    """The csv module drops the blanks in front of a cell, the quick way by columns does not."""
    text = "email;name\n  nobody ;Ada\n  ;Bob\n"
    values = [each.value for each in read(text)[1].rejected]
    assert values == [each.value for each in read(text, piece=10_000)[1].rejected] == ["nobody ", ""]


def test_blank_rows_are_only_counted() -> None:
    """Also those in which a spreadsheet left its separators."""
    checked = read("\nemail;name\n\n;\n  \n ; \n")[1]
    assert checked == CheckedRecipients([], [], [], [], [], 5)


@pytest.mark.parametrize("name", ["می\u200cگل", "👩\u200d🚒", "Zoë", "O'Neill", "=Ada", "李小龍"])
def test_names_of_all_the_world_are_attributes(name: str) -> None:
    """Joiners are parts of letters in names, unlike in codes."""
    assert people(f"email,name\na@example.org,{name}\n") == [("a@example.org", {"name": name})]


@given(st.lists(st.tuples(st.sampled_from(ADDRESSES) | ADDRESS_LIKE, VALUES, VALUES), min_size=1, max_size=8))
def test_a_row_is_judged_alone(rows: list[tuple[str, str, str]]) -> None:
    """Rows that are plain are taken by columns, others one by one: nobody can tell which, whatever stands around."""
    reader = RecipientReader(UNSAID)
    reader.feed(b"email;a;b\n")
    checked = reader.feed("".join(map(csv_row, rows)).encode(errors="surrogatepass"))
    taken = dict(zip(checked.lines, zip(checked.addresses, checked.keys, checked.attributes, strict=True), strict=True))
    refused = {each.line: each.reason for each in checked.rejected}
    line = 2
    for row in rows:
        match verdict(*row):
            case Reason() as reason:
                assert refused.pop(line) == reason
            case None:
                pass
            case address, key, attributes:
                found = taken.pop(line)
                assert (found[0], found[1], json.loads(found[2])) == (address, key, attributes)
        line += 1 + "".join(row).count("\n")
    assert not taken
    assert not refused
    assert checked.blank == sum(verdict(*row) is None for row in rows)


def csv_row(row: tuple[str, ...]) -> str:
    return ";".join('"' + cell.replace('"', '""') + '"' if set(cell) & set('";\n') else cell for cell in row) + "\n"


def verdict(cell: str, *values: str) -> Reason | tuple[str, str, dict[str, str]] | None:
    """What becomes of a row, said without the reader."""
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
def test_a_plain_address_is_one_that_would_be_taken_as_it_is(text: str) -> None:
    """What the quick look takes, the strict check takes with the same key."""
    if recipient_reader._PLAIN_ADDRESS.fullmatch(text):
        assert parse_address(text) == Address(text, text.lower())


def test_a_reader_says_how_it_reads() -> None:
    """Once the header was seen, without any cell."""
    reader, _ = read("name;E-Mail\r\nAda;a@example.org\r\n")
    assert reader.seen == 'csv, separator ";", column 2, with a header, utf-8'
    assert not RecipientReader(UNSAID).seen


# --- rows that are mended ------------------------------------------------------------------------------------------


def test_a_refused_row_is_kept_whole() -> None:
    """By the names of its columns; of a row with more or fewer cells, nobody knows which is which."""
    assert rows("Name;email\nAda;nobody\nBob;\n=1;a@example.org;2\n") == [
        {"email": "nobody", "name": "Ada"},
        {"email": "", "name": "Bob"},
        {"email": "=1\ufffda@example.org\ufffd2"},
    ]


def test_a_cell_of_a_refused_row_can_be_stored_and_shown() -> None:
    """What nobody can see is a U+FFFD, but for the joiners in names; what was too long is cut and still too long."""
    text = f"email;a;b\na@b.de;{'x' * 1_002};\0y\na\u200bb@b.de;می\u200cگل;\n"
    assert rows(text) == [
        {"email": "a@b.de", "a": "x" * 1_000 + "…", "b": "\ufffdy"},
        {"email": "a\ufffdb@b.de", "a": "می\u200cگل", "b": ""},
    ]


@given(st.lists(st.tuples(st.sampled_from(ADDRESSES) | ADDRESS_LIKE, VALUES, VALUES), min_size=1, max_size=8))
def test_what_nobody_mended_is_refused_again_and_what_is_mended_has_its_attributes(
    cells: list[tuple[str, str, str]],
) -> None:
    """For the same reason; and with each attribute to the letter, unless the attribute was what was refused."""
    reader = RecipientReader(UNSAID)
    reader.feed(b"email;a;b\n")
    refused = reader.feed("".join(map(csv_row, cells)).encode(errors="surrogatepass")).rejected
    again = come_back(refused)
    assert not again.addresses
    assert [each.reason for each in again.rejected] == [each.reason for each in refused]
    assert [each.row for each in again.rejected] == [each.row for each in refused]
    mended = come_back([replace(each, value="mended@example.org") for each in refused])
    kept = [each.row for each in refused if each.reason in {Reason.NO_ADDRESS, Reason.BAD_ADDRESS} and each.row]
    taken = [json.loads(attributes) for attributes in mended.attributes]
    assert taken == [
        {"a": row["a"], "b": row["b"]} for row in kept if not recipient_reader._against([row["a"], row["b"]])
    ]


def come_back(refused: list[Rejected]) -> CheckedRecipients:
    reader, checked = read("".join(rejections_csv(refused, ("email", "a", "b"))), piece=1_000)
    assert reader.attributes == ["a", "b"]
    return checked


def test_lines_and_reasons_that_come_back_are_no_attributes() -> None:
    """Nor do they count as such: neither a row without anything else, nor a file with a hundred attributes."""
    reader, checked = read("Line;email;name;REASON\n3;a@example.org;Ada;x\n4;;;y\n")
    assert (reader.attributes, checked.attributes, checked.blank) == (["name"], ['{"name":"Ada"}'], 1)
    many = "".join(f"a{number};" for number in range(100))
    assert len(read(f"line;email;{many}reason\n")[0].attributes) == 100


def test_attributes_may_be_called_line_and_reason() -> None:
    """Only as the first and the last column together they are left out."""
    text = "line;email;line;reason;reason\n3;a@example.org;A;B;x\n"
    assert people(text) == [("a@example.org", {"line": "A", "reason": "B"})]
    assert people("line;email\n3;a@example.org\n") == [("a@example.org", {"line": "3"})]
    assert people("email;reason\na@example.org;x\n") == [("a@example.org", {"reason": "x"})]


def test_a_formula_is_only_what_comes_back_with_its_mark() -> None:
    """In any other file a ' is the shop's own."""
    assert people("email;phone\na@example.org;'+49 1\n") == [("a@example.org", {"phone": "'+49 1"})]
    text = "line;email;phone;reason\n3;'+a@example.org; '+49 1;x\n"
    assert people(text) == [("+a@example.org", {"phone": "+49 1"})]


@pytest.mark.parametrize(
    ("row", "reason"), [("a@b.de;J\ufffdrgen", Reason.CONTROL), ("a\ufffd@b.de;", Reason.BAD_ADDRESS)]
)
def test_what_was_damaged_before_is_refused(row: str, reason: Reason) -> None:
    """Some program has put a U+FFFD where it lost a letter: nobody is to be called so."""
    assert reasons(f"email;name\n{row}\n") == [(2, reason)]


# --- headers -------------------------------------------------------------------------------------------------------


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
        ("имя", ""),
        ("?", ""),
    ],
)
def test_a_header_becomes_a_name_that_a_template_can_use(header: str, name: str) -> None:
    """Umlauts are written out, everything that is no letter or digit is one underscore."""
    assert attribute_name(header) == name


@given(st.text(max_size=30))
def test_any_header_becomes_a_usable_name_or_none(header: str) -> None:
    """The name is stable: made again from itself it stays."""
    name = attribute_name(header)
    assert not name or (name.isascii() and name.isidentifier() and name == name.lower())
    assert attribute_name(name).lstrip("_") == name.lstrip("_")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name;city\nAda;Rome\n", "no column is called email; say which holds the addresses (its columns are 1 'name'"),
        ("email;mail\na@b.de;b@b.de\n", "columns 1 and 2 could be meant"),
        ("email;;city\na@b.de;x;y\n", "column 2 has no name that a template could use"),
        ("email;имя\na@b.de;x\n", "column 2 has no name that a template could use"),
        ("email;First Name;first-name\na@b.de;x;y\n", "columns 2 and 3 are both called 'first_name': rename one"),
        ("email;Coupon\na@b.de;x\n", "column 2 cannot be called 'coupon'"),
        ("email;has coupon\na@b.de;x\n", "column 2 cannot be called 'has_coupon'"),
        ("email;In\na@b.de;x\n", "column 2 cannot be called 'in'"),
        (f"email;{'x' * 51}\na@b.de;x\n", "column 2 has a name of more than 50 characters"),
        ("email" + "".join(f";a{n}" for n in range(101)) + "\n", "102 columns: a recipient has at most 100 attributes"),
        ("", "customers.csv is empty"),
    ],
)
def test_a_header_that_templates_could_not_use_is_refused(text: str, reason: str) -> None:
    """In one line that names the column and the remedy, before any recipient is taken."""
    message = error(text)
    assert message.startswith("customers.csv")
    assert reason in message


def test_an_attribute_cannot_be_called_like_the_address() -> None:
    """{{ email }} is the address that was mailed, also where another column was given."""
    assert "column 2 cannot be called 'email'" in error("work;Email\na@b.de;b@b.de\n", column="work")


def test_a_file_without_a_header_is_refused() -> None:
    """Its first recipient would be lost in it; the address is not shown."""
    message = error("ada@b.de;Ada\nbob@b.de;Bob\n", column=1)
    assert "the first line holds an address already" in message
    assert "ada" not in message
    assert "ada" not in error("ada@b.de;Ada\nbob@b.de;Bob\n")


def test_a_hundred_attributes_are_taken() -> None:
    """And the address besides."""
    assert len(column_names(["email", *(f"a{number}" for number in range(100))])) == 101
