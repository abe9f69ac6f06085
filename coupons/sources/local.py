"""`file:` sources: files under one folder."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from coupons.sources.limits import SourceLimits
from coupons.sources.source import PIECE_BYTES, Source, SourceError, file_name
from coupons.sources.threads import run_in_thread


@asynccontextmanager
async def open_file(url: str, limits: SourceLimits) -> AsyncIterator[Source]:
    """The file of a `file:` URL.

    Raises SourceError if no folder is set, the path leads outside the folder, or there is no readable file.
    """
    if limits.folder is None:
        raise SourceError("file: sources are disabled: COUPONS_IMPORT_FOLDER is not set")
    path = unquote(urlsplit(url).path)
    name = file_name(path, "the folder")
    with _translate_os_errors(name):
        file = await run_in_thread(partial(_open, path, limits.folder, name))
    with file:
        yield Source(name, os.fstat(file.fileno()).st_size, _pieces(file, name))


def check_path(url: str, limits: SourceLimits) -> None:
    """Raise SourceError if the path of a `file:` URL leads outside the folder. The file need not exist."""
    if limits.folder is None:
        raise SourceError("file: sources are disabled: COUPONS_IMPORT_FOLDER is not set")
    path = unquote(urlsplit(url).path)
    name = file_name(path, "the folder")
    with _translate_os_errors(name):
        _resolve(path, limits.folder, name)


def _resolve(text: str, folder: Path, name: str) -> Path:
    path = Path(text).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise SourceError(f"{name} is not in {folder}, the folder for file: sources")
    return path


def _open(text: str, folder: Path, name: str) -> BinaryIO:
    path = _resolve(text, folder, name)
    file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115 - Path.open() takes no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SourceError(f"{name} is not a regular file")
    return file


def _open_nonblocking(path: str, flags: int) -> int:
    """Open the file without waiting for a writer of a FIFO, and without following a symbolic link.

    The path is already resolved, so a symbolic link was created afterwards.
    """
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


async def _pieces(file: BinaryIO, name: str) -> AsyncIterator[bytes]:
    with _translate_os_errors(name):
        while piece := await run_in_thread(partial(file.read, PIECE_BYTES)):
            yield piece


@contextmanager
def _translate_os_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    except (RuntimeError, ValueError) as error:  # a circular link; a NUL in the path
        raise SourceError(f"{name} cannot be read: invalid path") from error
