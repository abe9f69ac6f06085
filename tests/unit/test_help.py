"""The help of each command is complete and readable on a terminal of 80 columns.

docs/reference/command-line.md has all of these texts, so that a change of the command line is visible in a diff.
"""

import runpy
from pathlib import Path

import click
import pytest

from producers.cli import SECTIONS, main

GENERATOR = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "generate.py"))
HELP: dict[str, str] = GENERATOR["help_texts"]()
COLUMNS: int = GENERATOR["HELP_COLUMNS"]


def commands(group: click.Group, path: tuple[str, ...] = ("coupons",)) -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[" ".join((*path, name))] = command
        if isinstance(command, click.Group):
            found |= commands(command, (*path, name))
    return found


COMMANDS = commands(main)


def test_each_command_has_a_help_text() -> None:
    """The generated page has one section per command."""
    assert HELP.keys() == {"coupons", *COMMANDS}


@pytest.mark.parametrize("name", HELP)
def test_help_fits_the_terminal(name: str) -> None:
    """No line is longer than 80 columns."""
    assert [line for line in HELP[name].splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("name", HELP)
def test_help_has_no_cut_summary_and_no_control_character(name: str) -> None:
    r"""A long summary would end with three dots. `\b` marks a paragraph for click and must not be printed."""
    assert "..." not in HELP[name].replace("[ARGS]...", "")
    assert "\b" not in HELP[name]
    assert r"\b" not in HELP[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_explained(name: str) -> None:
    """Each option has a help text, and each command a summary."""
    options = [each for each in COMMANDS[name].params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []
    assert COMMANDS[name].get_short_help_str()


def test_each_command_is_in_one_section() -> None:
    """`coupons --help` lists each command in exactly one section."""
    listed = [command.name for section in SECTIONS.values() for command in section]
    assert sorted(map(str, listed)) == sorted(main.commands)
