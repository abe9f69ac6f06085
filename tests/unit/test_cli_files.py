"""Files, pipes and format options of the command line."""

import os
from pathlib import Path
from threading import Thread

import click
import pytest
from click.testing import CliRunner

from coupons.sources import PIECE_BYTES, SourceError
from producers.cli.files import format_options, number_or_name, source_of


@pytest.mark.parametrize(
    ("column", "expected"), [("2", 2), ("code", "code"), ("²", "²"), ("1.", "1."), ("-1", "-1"), (None, None)]
)
def test_a_column_is_a_number_or_a_name(column: str | None, expected: str | int | None) -> None:
    """Text that only resembles digits is a name."""
    assert number_or_name(column) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("TAB", "\t"), ("tab", "\t"), ("\t", "\t"), (";", ";"), ("tabs", "tabs")]
)
def test_a_tab_is_written_as_its_name(text: str, expected: str) -> None:
    """A tab is hard to type; other separators are given literally."""

    @click.command()
    @format_options
    def command(separator: str, **_: object) -> None:
        click.echo(repr(separator))

    assert CliRunner().invoke(command, ["--separator", text]).output == f"{expected!r}\n"


async def test_a_pipe_is_read_in_whole_pieces(tmp_path: Path) -> None:
    """Although its bytes arrive in pieces of 64 KiB; the last piece is the remainder."""
    path, content = tmp_path / "pipe", os.urandom(2 * PIECE_BYTES + 10)
    os.mkfifo(path)
    Thread(target=path.write_bytes, args=(content,)).start()
    with path.open("rb") as pipe:
        pieces = [piece async for piece in source_of(pipe).pieces]
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 10]
    assert b"".join(pieces) == content


async def test_a_read_error_names_the_file() -> None:
    """With the reason from the operating system."""
    with Path("/proc/self/mem").open("rb") as file, pytest.raises(SourceError) as caught:  # noqa: ASYNC230 - opens at once
        assert [piece async for piece in source_of(file).pieces]
    assert str(caught.value) == "mem cannot be read: Input/output error"
