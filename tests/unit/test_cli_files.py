"""What the command line makes of files, pipes and the options that say how to read them."""

import os
from pathlib import Path
from threading import Thread

import click
import pytest
from click.testing import CliRunner

from coupons.sources import PIECE_BYTES, SourceError
from producers.cli.files import format_options, number_or_name, source_of


@pytest.mark.parametrize(
    ("column", "meant"), [("2", 2), ("code", "code"), ("²", "²"), ("1.", "1."), ("-1", "-1"), (None, None)]
)
def test_a_column_is_a_number_or_a_name(column: str | None, meant: str | int | None) -> None:
    """What only looks like a digit is a name."""
    assert number_or_name(column) == meant


@pytest.mark.parametrize(("said", "meant"), [("TAB", "\t"), ("tab", "\t"), ("\t", "\t"), (";", ";"), ("tabs", "tabs")])
def test_a_tab_is_said_by_its_name(said: str, meant: str) -> None:
    """It is hard to type; other separators are meant as they stand."""

    @click.command()
    @format_options
    def command(separator: str, **_: object) -> None:
        click.echo(repr(separator))

    assert CliRunner().invoke(command, ["--separator", said]).output == f"{meant!r}\n"


async def test_a_pipe_is_read_in_whole_pieces(tmp_path: Path) -> None:
    """Though its bytes come in pieces of 64 KiB; the last piece is what is left."""
    path, content = tmp_path / "pipe", os.urandom(2 * PIECE_BYTES + 10)
    os.mkfifo(path)
    Thread(target=path.write_bytes, args=(content,)).start()
    with path.open("rb") as pipe:
        pieces = [piece async for piece in source_of(pipe).pieces]
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 10]
    assert b"".join(pieces) == content


async def test_a_file_that_cannot_be_read_on_is_named() -> None:
    """With the reason that the system gives."""
    with Path("/proc/self/mem").open("rb") as file, pytest.raises(SourceError) as told:  # noqa: ASYNC230 - opens at once
        assert [piece async for piece in source_of(file).pieces]
    assert str(told.value) == "mem cannot be read: Input/output error"
