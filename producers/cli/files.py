"""Files on the command line: the options that describe them, reading them here, and writing rejected lines."""

import asyncio
import csv
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeVar

import click

from producers.cli.progress import Progress

if TYPE_CHECKING:
    from coupons.commands import Format
    from coupons.files.code_reader import CodeReader
    from coupons.files.format import FileFormat
    from coupons.files.rejections import Rejected
    from coupons.sources import Source, Text

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

URLS = ("https:", "s3:", "file:")


def _separator(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Accept the word TAB: a tab is hard to type."""
    return "\t" if value and value.lower() == "tab" else value


def _columns(_: click.Context, __: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Split each value at its commas. A name that contains a comma is quoted as in a CSV file."""
    return tuple(cell.strip() for row in csv.reader(values, skipinitialspace=True) for cell in row if cell.strip())


def _flag(_: click.Context, __: click.Parameter, value: bool | None) -> bool | None:
    return value or None


_FORMAT_OPTIONS = (
    click.option("--kind", type=click.Choice(["txt", "csv"]), help="File type.  [default: detected]"),
    click.option("--header/--no-header", default=None, help="Treat the first line of a table as a header."
                 "  [default: detected]"),
    click.option("--encoding", help="Text encoding: any Python codec. It is never detected.  [default: utf-8]"),
    click.option("--force-encoding", is_flag=True, callback=_flag, help="Use --encoding although the file is valid"
                 " UTF-8."),
    click.option("--separator", callback=_separator, help="CSV column separator: one character, or TAB."
                 "  [default: detected among ; , TAB |]"),
    click.option("--column", help="Column that holds the codes or addresses: name or 1-based number."
                 "  [default: detected]"),
    click.option("--sheet", help="Sheet of a spreadsheet: name or 1-based number.  [default: the first]"),
    click.option("--skip-lines", type=click.IntRange(0, 1_000), metavar="N", help="Do not read the first N lines."),
    click.option("--columns", multiple=True, callback=_columns, metavar="A,B=NAME", help="Only these columns of"
                 " recipients become attributes; B=NAME renames column B.  [default: all]"),
    click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Import only rows with this value (or"
                 " COLUMN!=VALUE). Repeatable: all conditions must hold."),
    click.option("--allow-lookalikes", is_flag=True, callback=_flag, help="Accept codes that mix scripts, full-width"
                 " letters or several kinds of dash."),
)  # fmt: skip
_FORMAT_FIELDS = (
    *("kind", "header", "encoding", "force_encoding", "separator", "column", "sheet", "skip_lines", "columns", "where"),
    "allow_lookalikes",
)

_MOST_PIECES = 8
"""The number of MiB in which the first codes of a file are looked for."""
T = TypeVar("T")


class FileOrUrl(click.File):
    """A file that this process opens, or the URL of one that a worker reads."""

    name = "file"

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        return (
            value if isinstance(value, str) and value.startswith(URLS) else super().convert(value, parameter, context)
        )


def format_options(command: Any) -> Any:
    """Add the options that describe a file of codes or recipients. The command gets them as one dict, `format_fields`.

    Options that are not given are not in the dict.
    """

    @wraps(command)
    def run(**options: Any) -> Any:
        given = {name: options.pop(name) for name in _FORMAT_FIELDS}
        return command(format_fields={name: value for name, value in given.items() if _is_given(value)}, **options)

    described: Any = run
    for option in reversed(_FORMAT_OPTIONS):
        described = option(described)
    return described


def _is_given(value: object) -> bool:
    return value is not None and value != ()


def parse_format(fields: "Mapping[str, Any]") -> "Format":
    """Return the format that the options describe. Raises ValidationError."""
    from coupons.commands import Format
    from coupons.files.format import parse_column

    numbered = {name: parse_column(fields[name]) for name in ("column", "sheet") if name in fields}
    return Format(**{**fields, **numbered})


def source_of(file: BinaryIO, show: Callable[[Progress], None] | None = None) -> "Source":
    """Return the open file as a source of the import engine. `show` is called with the progress after each MiB."""
    from coupons.sources import Source

    size = _size(file)
    return Source(display_name(file), size, _pieces(file, size, show))


def display_name(file: BinaryIO) -> str:
    return str(click.format_filename(file.name, shorten=True)) if file is not sys.stdin.buffer else "stdin"


def can_be_read_again(file: BinaryIO) -> bool:
    """Return whether this is a file on disk and not a pipe."""
    return _size(file) is not None


async def check_beginning(file: BinaryIO, format_: "FileFormat", *, recipients: bool = False) -> list[str]:
    """Check, before any upload, that the file begins with codes or recipients. Return its first codes.

    A pipe cannot be read twice, so its errors are reported by the import itself. Raises FileError, SourceError.
    """
    if not can_be_read_again(file):
        return []
    from coupons.files.code_reader import CodeReader
    from coupons.files.decoding import FileError
    from coupons.files.recipient_reader import RecipientReader
    from coupons.settings import load_settings
    from coupons.sources import SourceLimits, Text

    with _os_errors_of(display_name(file)), Path(file.name).open("rb") as beginning:  # noqa: ASYNC230 - opens at once
        text = Text(source_of(beginning), SourceLimits.from_settings(load_settings()), sheet=format_.sheet)
        if recipients:
            reader: RecipientReader | None = None
            async for piece in text:
                if reader:
                    return []
                reader = RecipientReader(text.format_for(format_), text.name)
                reader.feed(piece)
            if reader is None:
                raise FileError(f"{text.name} is empty")
            reader.finish()  # of a short file, a reader checks the beginning only here
            return []
        return await _first_codes(text, lambda: CodeReader(text.format_for(format_), text.name))


async def _first_codes(text: "Text", create_reader: "Callable[[], CodeReader]") -> list[str]:
    """Return the codes from which their shape is seen, or all codes of the beginning if they are fewer."""
    from coupons.files.code_shapes import SAMPLE_CODES
    from coupons.files.decoding import FileError

    codes: list[str] = []
    reader, pieces = None, 0
    async for piece in text:
        reader, pieces = reader or create_reader(), pieces + 1
        codes += reader.feed(piece).codes
        if len(codes) >= SAMPLE_CODES or pieces == _MOST_PIECES:
            return codes[:SAMPLE_CODES]
    if reader is None:
        raise FileError(f"{text.name} is empty")
    return codes + reader.finish().codes


async def sha256_of(file: BinaryIO) -> bytes | None:
    """Return the digest of the whole file; None for a pipe, which cannot be read twice. Raises SourceError."""
    if not can_be_read_again(file):
        return None

    def digest() -> bytes:
        with Path(file.name).open("rb") as again:
            return hashlib.file_digest(again, "sha256").digest()

    with _os_errors_of(display_name(file)):
        return await _in_daemon_thread(digest)


async def write_rejected(file: TextIO, rejected: "AsyncIterator[Rejected]", columns: Sequence[str]) -> None:
    from coupons.files.rejections import streamed_rejections_csv

    async for line in streamed_rejections_csv(rejected, columns):
        file.write(line)


def format_volume(done: int, total: int | None) -> str:
    """Return the volume as text, such as `3.1 of 17.0 MB`."""
    largest = max(done, total or 0)
    size, unit = next(((size, unit) for size, unit in _UNITS if largest >= size), (1.0, "bytes"))
    whole = "" if total is None else f" of {total / size:,.1f}"
    return f"{done / size:,.1f}{whole} {unit}"


def _size(file: BinaryIO) -> int | None:
    """Return the size of a file on disk; None for a pipe."""
    path = Path(os.fsdecode(file.name)) if isinstance(file.name, str | bytes) else None
    return path.stat().st_size if path and path.is_file() else None


async def _pieces(file: BinaryIO, size: int | None, show: Callable[[Progress], None] | None) -> AsyncIterator[bytes]:
    from coupons.sources import PIECE_BYTES

    done, piece = 0, b"\0" * PIECE_BYTES
    while len(piece) == PIECE_BYTES:
        with _os_errors_of(display_name(file)):
            piece = await _in_daemon_thread(partial(_read, file.fileno(), PIECE_BYTES))
        done += len(piece)
        if show:
            show(Progress(done, size, "", amount=format_volume(done, size), measured=True))
        if piece:
            yield piece


def _read(descriptor: int, size: int) -> bytes:
    """Return `size` bytes, or fewer at the end. A single read of a pipe returns at most 64 KiB.

    This bypasses the opened file object, because its reader would still hold its lock when the process exits.
    """
    gathered = bytearray()
    while len(gathered) < size and (part := os.read(descriptor, size - len(gathered))):
        gathered += part
    return bytes(gathered)


async def _in_daemon_thread(call: Callable[[], T]) -> T:
    """Run the call in a thread that does not keep the process from exiting.

    Python waits for the threads of `asyncio.to_thread` before it exits, so Ctrl-C would do nothing while a pipe is
    silent.
    """
    done: Future[T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001 - the awaiting task raises it
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(done)


@contextmanager
def _os_errors_of(name: str) -> Iterator[None]:
    from coupons.sources import SourceError

    try:
        yield
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
