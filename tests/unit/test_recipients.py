"""Recipients out of a CSV file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.codes import Reason
from coupons.reading import FileError, FileFormat
from coupons.recipients import CheckedRecipients, Recipient, RecipientReader, attribute_name, column_names

UNSAID = FileFormat()


def read(text: str, file_format: FileFormat = UNSAID, piece: int = 7) -> tuple[RecipientReader, CheckedRecipients]:
    reader = RecipientReader(file_format, "customers.csv")
    data = text.encode()
    batches = [reader.feed(data[start : start + piece]) for start in range(0, len(data), piece)] + [reader.finish()]
    return reader, CheckedRecipients(
        [line for batch in batches for line in batch.lines],
        [recipient for batch in batches for recipient in batch.recipients],
        [rejected for batch in batches for rejected in batch.rejected],
        sum(batch.blank for batch in batches),
    )


def reasons(text: str) -> list[tuple[int, Reason]]:
    return [(each.line, each.reason) for each in read(text)[1].rejected]


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
        [
            Recipient("Ada@Example.org", "ada@example.org", {"first_name": "Ada", "groesse": ""}),
            Recipient("j@example.org", "j@example.org", {"first_name": "Jürgen", "groesse": "4;2"}),
        ],
        [],
        1,
    )


@pytest.mark.parametrize(
    "header",
    ["email", "E-Mail", "Mail", "EMAIL ADDRESS", "email_address", "E-Mail-Adresse", "Emailadresse", "Mailadresse"],
)
def test_the_column_of_addresses_is_known_by_its_name(header: str) -> None:
    """In English and German, in any case and spelling; it is {{ email }} in a message."""
    assert read(f"name,{header}\nAda,a@example.org\n")[1].recipients == [
        Recipient("a@example.org", "a@example.org", {"name": "Ada"})
    ]


@pytest.mark.parametrize("column", ["contact", 1, "1"])
def test_the_column_of_addresses_can_be_given(column: str | int) -> None:
    """By name or number, where no name is known."""
    assert read("Contact,name\na@example.org,Ada\n", FileFormat(column=column))[1].recipients == [
        Recipient("a@example.org", "a@example.org", {"name": "Ada"})
    ]


def test_a_file_of_addresses_alone_is_enough() -> None:
    """Recipients need no attributes."""
    assert read("email\na@example.org\n\n")[1] == CheckedRecipients(
        [2], [Recipient("a@example.org", "a@example.org", {})], [], 1
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
    assert checked.lines == [11]
    assert checked.rejected[1].value == "a@example.org, b@example.org"


def test_blank_rows_are_only_counted() -> None:
    """Also those in which a spreadsheet left its separators."""
    checked = read("\nemail;name\n\n;\n  \n ; \n")[1]
    assert checked == CheckedRecipients([], [], [], 5)


@pytest.mark.parametrize("name", ["می\u200cگل", "👩\u200d🚒", "Zoë", "O'Neill", "=Ada", "李小龍"])
def test_names_of_all_the_world_are_attributes(name: str) -> None:
    """Joiners are parts of letters in names, unlike in codes."""
    assert read(f"email,name\na@example.org,{name}\n")[1].recipients[0].attributes == {"name": name}


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
