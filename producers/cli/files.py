"""Files on the command line: the options that describe them, reading them here, and writing rejected lines."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeVar

import click

from producers.cli.progress import Progress

if TYPE_CHECKING:
    from coupons.files.format import FileFormat
    from coupons.files.rejections import Rejected
    from coupons.sources import Source

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

URLS = ("https:", "s3:", "file:")

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
    """Add the options that describe a file of codes or recipients."""
    for option in reversed((
        click.option(
            "--encoding", default="utf-8", show_default=True,
            help="Text encoding: any Python codec. It is never detected.",
        ),
        click.option(
            "--separator", callback=_separator,
            help="CSV column separator: one character, or TAB.  [default: detected among ; , TAB |]",
        ),
    )):  # fmt: skip
        command = option(command)
    return command


def _separator(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Accept the word TAB: a tab is hard to type."""
    return "\t" if value and value.lower() == "tab" else value


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


async def check_beginning(file: BinaryIO, format_: "FileFormat", *, recipients: bool = False) -> None:
    """Raise FileError or SourceError, before any upload, if the file does not begin with codes or recipients.

    A pipe cannot be read twice, so its errors are reported by the import itself.
    """
    if not can_be_read_again(file):
        return
    from coupons.files.code_reader import CodeReader
    from coupons.files.recipient_reader import RecipientReader
    from coupons.settings import load_settings
    from coupons.sources import SourceLimits, Text

    with _os_errors_of(display_name(file)), Path(file.name).open("rb") as beginning:  # noqa: ASYNC230 - opens at once
        text = Text(source_of(beginning), SourceLimits.from_settings(load_settings()))
        reader: CodeReader | RecipientReader | None = None
        async for piece in text:
            if reader:
                return
            reader = (RecipientReader if recipients else CodeReader)(format_, text.name)
            reader.feed(piece)
        if reader:
            reader.finish()  # of a short file, a reader checks the beginning only here


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
