"""Files, pipes and format options of the command line."""

import json
import os
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest
from click.testing import CliRunner

from coupons.commands import Format
from coupons.files.format import parse_column
from coupons.sources import PIECE_BYTES, SourceError
from producers.cli.files import format_options, parse_format, source_of


@pytest.mark.parametrize(
    ("column", "expected"),
    [("2", 2), ("code", "code"), ("²", "²"), ("1.", "1."), ("-1", "-1"), ("9" * 5_000, "9" * 5_000), (None, None)],
)
def test_a_column_is_a_number_or_a_name(column: str | None, expected: str | int | None) -> None:
    """A column of a few digits is a number; any other text is a name."""
    assert parse_column(column) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("TAB", "\t"), ("tab", "\t"), ("\t", "\t"), (";", ";"), ("tabs", "tabs")]
)
def test_a_tab_is_written_as_its_name(text: str, expected: str) -> None:
    """A tab, which is hard to type, can be given by its name; other separators are given literally."""

    @click.command()
    @format_options
    def command(format_fields: dict[str, Any]) -> None:
        click.echo(repr(format_fields["separator"]))

    assert CliRunner().invoke(command, ["--separator", text]).output == f"{expected!r}\n"


def test_only_the_given_options_describe_the_format() -> None:
    """A retry changes only the options that are given. `--columns` is split at commas, `--where` is not."""

    @click.command()
    @format_options
    def command(format_fields: dict[str, Any]) -> None:
        click.echo(json.dumps(format_fields))

    def fields(*arguments: str) -> object:
        return json.loads(CliRunner().invoke(command, arguments).output)

    assert fields() == {}
    assert fields("--no-header", "--skip-lines", "2", "--sheet", "3") == {
        "header": False, "skip_lines": 2, "sheet": "3"
    }  # fmt: skip
    given = fields("--columns", 'a, "b,c",Prénom=first_name', "--columns", "d", "--where", "A=1,2", "--where", "B!=x")
    assert given == {"columns": ["a", "b,c", "Prénom=first_name", "d"], "where": ["A=1,2", "B!=x"]}
    assert fields("--force-encoding", "--allow-lookalikes") == {"force_encoding": True, "allow_lookalikes": True}


def test_each_option_of_the_format_is_an_option_of_the_command_line() -> None:
    """A new field of the format cannot be forgotten here; a column and a sheet may be numbers."""

    @click.command()
    @format_options
    def command(**_: object) -> None:
        pass

    options = [each for each in command.params if isinstance(each, click.Option)]
    assert {each.name for each in options} == set(Format.model_fields)
    assert parse_format({"column": "2", "sheet": "Codes"}) == Format(column=2, sheet="Codes")


async def test_a_pipe_is_read_in_whole_pieces(tmp_path: Path) -> None:
    """A pipe is read in whole pieces although its bytes arrive 64 KiB at a time. The last piece is the remainder."""
    path, content = tmp_path / "pipe", os.urandom(2 * PIECE_BYTES + 10)
    os.mkfifo(path)
    Thread(target=path.write_bytes, args=(content,)).start()
    with path.open("rb") as pipe:
        pieces = [piece async for piece in source_of(pipe).pieces]
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 10]
    assert b"".join(pieces) == content


async def test_a_read_error_names_the_file() -> None:
    """The error contains the name of the file and the reason from the operating system."""
    with Path("/proc/self/mem").open("rb") as file, pytest.raises(SourceError) as caught:  # noqa: ASYNC230 - opens at once
        assert [piece async for piece in source_of(file).pieces]
    assert str(caught.value) == "mem cannot be read: Input/output error"
