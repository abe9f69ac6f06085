"""The fields of the console's import forms: their encodings, and their names in reasons and notices."""

import re
from importlib.resources import files

import pytest

from coupons.files import encodings
from coupons.files.format import is_encoding
from producers.cli.imports import import_file
from producers.web.encodings import ENCODINGS
from producers.web.option_labels import LABELS, for_console

WITHOUT_FIELD = {
    *("--list", "--group", "--kind", "--dry-run", "--wait", "--timeout", "--rejected", "--id", "--json", "--help"),
}
"""Options about the target and about following an import. The console detects the kind of a file."""


def test_the_console_offers_each_encoding_that_an_error_recommends() -> None:
    """Each offered one is known to Python."""
    offered = [encoding for choices in ENCODINGS.values() for encoding in choices]
    assert set(encodings._ENCODINGS) <= set(offered)
    assert len(set(offered)) == len(offered)
    assert all(map(is_encoding, offered))


def test_each_option_of_an_import_has_a_field() -> None:
    """The table has no other options."""
    options = {name for option in import_file.params for name in (*option.opts, *option.secondary_opts) if "--" in name}
    assert options - WITHOUT_FIELD == set(LABELS)


@pytest.mark.parametrize(
    "label", [label for option, label in LABELS.items() if "header" not in option and option != "--column"]
)
def test_the_labels_are_those_of_the_forms(label: str) -> None:
    """The user finds the field by its name."""
    template = files("producers.web").joinpath("templates/_import_macros.html").read_text(encoding="utf-8")
    assert label in re.sub(r"\s+", " ", template)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('--where "Used=VALUE" selects rows', "“Used=VALUE” in the field “Only rows with” selects rows"),
        ("use --header or --no-header", "use the field “First line”"),
        ("or use --skip-lines N", "or use the field “Lines to skip at the beginning”"),
        ("--allow-empty (allow_empty) permits it", "the field “Replace even if no line is accepted” permits it"),
        ("nothing was changed; confirm with --yes (confirmed)", "nothing was changed; confirm it"),
        ("the sheets are 1 'A' (--sheet)", "the sheets are 1 'A' (the field “Sheet of a spreadsheet”)"),
        ("did not match --where", "did not match the field “Only rows with”"),
        ("column 'a--b' and --now stay", "column 'a--b' and --now stay"),
    ],
)
def test_a_reason_names_the_field_instead_of_the_option(text: str, shown: str) -> None:
    """Other text stays."""
    assert for_console(text) == shown


def test_wide_tables_scroll_within_a_narrow_page() -> None:
    """A box that scrolls contains its hidden headings, and no reason is one unwrapped line: nothing widens the page."""
    css = files("producers.web").joinpath("static/console.css").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^([^{}@]+?) \{([^{}]*)\}", css, re.MULTILINE))
    assert "position: relative" in rules[".scroll"]
    assert "overflow-x: auto" in rules[".scroll"]
    assert "nowrap" not in rules["td small"]
    assert "display: block" in rules[":is(th, td) small"]
