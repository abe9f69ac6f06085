"""`file:` sources: files under one folder."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from coupons.sources.limits import Rules
from coupons.sources.source import PIECE_BYTES, Source, SourceError, file_name
from coupons.sources.threads import in_thread


@asynccontextmanager
async def opened(url: str, rules: Rules) -> AsyncIterator[Source]:
    """The file that a `file:` URL names.

    Raises:
        SourceError: no folder is set, the path leads out of it, or there is no file that can be read.
    """
    if rules.folder is None:
        raise SourceError("file: sources are off: COUPONS_IMPORT_FOLDER is not set")
    path = unquote(urlsplit(url).path)
    name = file_name(path, "the folder")
    with _told(name):
        file = await in_thread(partial(_open, path, rules.folder, name))
    with file:
        yield Source(name, os.fstat(file.fileno()).st_size, _pieces(file, name))


def _open(text: str, folder: Path, name: str) -> BinaryIO:
    path = Path(text).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise SourceError(f"{name} is not in {folder}, the folder of file: sources")
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - Path.open() takes no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SourceError(f"{name} is not a file")
    return file


def _without_waiting(path: str, flags: int) -> int:
    """A fifo would have its reader wait for a writer; a link can only have come after the path was resolved."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


async def _pieces(file: BinaryIO, name: str) -> AsyncIterator[bytes]:
    with _told(name):
        while piece := await in_thread(partial(file.read, PIECE_BYTES)):
            yield piece


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # a link to itself; a NUL in the path
        raise SourceError(f"{name} cannot be read: there is no such path") from error
