"""Conditions that select rows, and the warning about columns that look like conditions."""

import pytest

from coupons.files.conditions import Condition, Selection, is_state_value, looks_like_state, parse_condition
from coupons.files.csv_rows import Rows
from coupons.files.decoding import FileError

HEADER = ["Code", "Used", "First Name", "Used"]


def rows(*cells: tuple[str, ...]) -> Rows:
    return Rows(range(2, 2 + len(cells)), list(zip(*cells, strict=True)), [], 1)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("Used=No", Condition("Used", "no", negated=False)),
        (" Used = No ", Condition("Used", "no", negated=False)),
        ("State!=gone", Condition("State", "gone", negated=True)),
        ("State != Gone", Condition("State", "gone", negated=True)),
        ("Used=", Condition("Used", "", negated=False)),
        ("Used!=", Condition("Used", "", negated=True)),
        ("Link=a=b", Condition("Link", "a=b", negated=False)),
    ],
)
def test_a_condition_has_a_column_and_a_value(text: str, condition: Condition) -> None:
    """A condition is `Column=value` or `Column!=value`. Blanks around both and the case of the value are ignored."""
    assert parse_condition(text) == condition


@pytest.mark.parametrize("text", ["", "Used", "=No", "!=No", " = ", "Used==No"])
def test_text_without_a_column_is_not_a_condition(text: str) -> None:
    """The error shows how a condition is written."""
    with pytest.raises(FileError, match="write COLUMN=VALUE or COLUMN!=VALUE"):
        parse_condition(text)


def test_rows_are_selected_by_all_conditions() -> None:
    """A row is selected if all conditions hold. The other rows count as blank, and a notice counts them."""
    selection = Selection(("first name=ada", "code!=b"), ["Code", "First Name"])
    found = selection.select(rows(("A", "Ada"), ("B", "ADA "), ("C", "Bob"), ("", "")))
    assert (found.lines, found.columns, found.blank) == ([2], [["A"], ["Ada"]], 4)
    assert selection.notices == ["2 rows did not match --where"]


def test_a_column_without_a_name_is_selected_by_its_number() -> None:
    """A file without a header has columns with numbers."""
    found = Selection(("2=Ada",), ["", ""]).select(rows(("A", "Ada"), ("B", "Bob")))
    assert found.columns == [["A"], ["Ada"]]


@pytest.mark.parametrize(
    "name",
    [
        "cashed",
        "Uses",
        "Number of uses",
        "Einlösungen",
        "Is valid",
        "is_active",
        "Assigned to",
        "Order ID",
        "Consumed",
        "voided",
        "canceled",
        "BLOCKLISTED",
        "deactivated",
        "DNC",
        "Werbesperre",
        "Kundenstatus",
        "Verstorben",
        "deceased",
        "Mailing OK",
        "Darf kontaktiert werden",
        "Cleaned",
        "email_valid",
    ],
)
def test_names_of_exports_look_like_a_state(name: str) -> None:
    """Exports of shops and of mail services name a state like this."""
    assert looks_like_state(name)


def test_without_conditions_the_rows_are_unchanged() -> None:
    """A selection without conditions returns the same rows, which costs nothing."""
    given = rows(("A", "x"))
    assert Selection((), ["Code", "Name"]).select(given) is given


@pytest.mark.parametrize(
    ("where", "header", "reason"),
    [
        ("Sold=No", HEADER, "no column 'Sold': the columns are 1 'Code', 2 'Used', 3 'First Name', 4 'Used'"),
        ("Used=No", HEADER, "2 columns are named 'Used': use a number, such as 2"),
        ("Used=No", ["", ""], "the file has none: use numbers from 1 to 2, such as --where 2=VALUE"),
        ("3=No", ["", ""], "--where needs a header line"),
        ("1=No", [], "--where needs a header line"),
    ],
)
def test_a_condition_on_a_column_that_does_not_exist_is_refused(where: str, header: list[str], reason: str) -> None:
    """The error is one line that lists the columns, or names what is missing."""
    with pytest.raises(FileError) as caught:
        Selection((where,), header)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("Accepts Email Marketing", "Opt-In", "optIn", "Opted out of email: News", "Unsubscribed from all email"),
        *(
            "Consent",
            "GDPR consent",
            "Subscribed",
            "Status",
            "Order status",
            "Used",
            "is_used",
            "Redeemed at",
            "Bounced",
        ),
        *("Einwilligung", "Eingelöst", "Abgemeldet", "Werbeeinwilligung", "Zustand", "Gültig"),
        *("Consentement", "Désabonné", "Utilisé", "Statut", "Consentimiento", "Usado", "Estado", "Canjeado"),
        *("Consenso", "Utilizzato", "Stato", "Consentimento", "Utilizado", "Toestemming", "Uitgeschreven", "Gebruikt"),
        *("Zgoda", "Wykorzystany", "Samtycke", "Använd", "Inlöst", "Samtykke", "Brugt", "Indløst", "Innløst"),
        *("Suostumus", "Käytetty", "Souhlas", "Použito", "Hozzájárulás", "İzin", "Kullan\u0131ld\u0131"),
        *("Согласие", "Использован", "Статус", "Κατάσταση", "State"),
    ],
)
def test_columns_of_consent_state_and_use_are_recognized(name: str) -> None:
    """Names of such columns are known in the languages of Europe, without regard to case and accents."""
    assert looks_like_state(name, [name])
    assert looks_like_state(name.upper(), [name])


@pytest.mark.parametrize(
    "name", ["Email", "First Name", "Code", "City", "Created", "Valid until", "Notes", "Estate", "Statue", "Value"]
)
def test_other_columns_are_not_taken_for_conditions(name: str) -> None:
    """A warning about any other column would hide the important ones."""
    assert not looks_like_state(name, [name])


def test_the_state_of_an_address_is_not_a_condition() -> None:
    """`State` next to `City` or `Zip` is a part of an address."""
    assert not looks_like_state("State", ["Email", "City", "State", "Zip"])


def test_a_warning_counts_the_values_of_columns_that_no_condition_mentions() -> None:
    """The warning names the column, shows its values if all are words for a state, and else only their number."""
    header = ["Used", "Status", "Redeemed at", "Consent"]
    selection = Selection(("Used=no",), header)
    selection.select(rows(("no", "new", "2026-01-01", "a@example.org"), ("No", "", "2026-01-02", "b@example.org")))
    selection.select(rows(("yes", "new", "", ""), ("no", "new", "", "")))
    assert selection.notices == [
        "1 row did not match --where",
        "column 'Status' (new 2, empty 1) was not considered: --where \"Status=VALUE\" selects rows",
        "column 'Redeemed at' (3 different values) was not considered: --where \"Redeemed at=VALUE\" selects rows",
        "column 'Consent' (3 different values) was not considered: --where \"Consent=VALUE\" selects rows",
    ]


def test_a_column_with_many_values_is_named_without_them() -> None:
    """More than five different values are not counted."""
    selection = Selection((), ["Status"])
    selection.select(rows(*((f"x{'y' * number}",) for number in range(6))))
    assert selection.notices == ["column 'Status' was not considered: --where \"Status=VALUE\" selects rows"]


def test_the_column_of_the_codes_is_never_described() -> None:
    """Its values are codes, even if its name looks like a state."""
    selection = Selection((), ["Used code"], subject=0)
    selection.select(rows(("ABCD",)))
    assert not selection.notices


@pytest.mark.parametrize(
    "value", ["", "0", "1", "x", "Yes", "Nein", "oui", "sí", "Não", "nie", "not used", "Inaktiv", "да"]
)
def test_words_for_a_state_are_shown(value: str) -> None:
    """They are known in the languages of Europe, without regard to case and accents."""
    assert is_state_value(value)


@pytest.mark.parametrize(
    "value", ["Ada Lovelace", "I am ill", "SPRINGQA", "Yes 2", "12", "a@example.org", "2026-01-01"]
)
def test_other_values_are_never_shown(value: str) -> None:
    """A value that is no known word may name a person or be a code. The notice has only the number of values."""
    assert not is_state_value(value)
    selection = Selection((), ["Used by"])
    selection.select(rows((value,), ("yes",)))
    assert selection.notices == [
        "column 'Used by' (2 different values) was not considered: --where \"Used by=VALUE\" selects rows"
    ]


def test_an_unknown_column_shows_no_code() -> None:
    """A header without a known name may be a line of codes, so the error has only the number of columns."""
    with pytest.raises(FileError) as caught:
        Selection(("Foo=1",), ["SPRING-HTMVWCA4"])
    assert str(caught.value) == "no column 'Foo': the file has 1 column"
