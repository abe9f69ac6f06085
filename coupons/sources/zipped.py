"""Decompression of a zip archive that contains one file."""

import io
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from coupons.sources.compression import Part
from coupons.sources.limits import SourceLimits
from coupons.sources.source import PIECE_BYTES, SourceError, SourceUnavailable, file_name
from coupons.sources.threads import run_in_thread

_READ_BYTES = 262_144  # zipfile reads ahead: a bomb is detected after at most 200 times this size of excess output
_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4
_CLUTTER = {".ds_store", "thumbs.db", "desktop.ini"}
_DAMAGE = (  # the errors that zipfile raised for 250,000 damaged files
    BadZipFile,
    EOFError,
    IndexError,
    NotImplementedError,  # for an unknown compression method
    OSError,
    OverflowError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    parts: AsyncIterator[Part]


class Archive:
    """A zip in an unnamed file: the directory of a zip is at its end. Raises SourceError if the zip is damaged."""

    def __init__(self, spool: io.FileIO, name: str) -> None:
        self._name = name
        self._file = _BoundedFile(spool.fileno(), closefd=False)
        with _translate_zip_errors(name):
            self.directory = ZipFile(self._file)

    def open_member(self, limits: SourceLimits) -> Member:
        """The only file in the zip.

        Raises SourceError: the zip contains no file or several files, needs a password, is damaged or exceeds a limit.
        """
        info = _only_file(self.directory, self._name)
        limits.check_decompressed(self._name, size=info.file_size, source_bytes=info.compress_size)
        return Member(file_name(info.filename, self._name), _parts(self.directory, info, self._file, self._name))


@asynccontextmanager
async def spooled(parts: AsyncIterator[Part], name: str, limits: SourceLimits) -> AsyncIterator[io.FileIO]:
    """An unnamed file with the whole content.

    Raises:
        SourceError: the content exceeds a limit, or this machine has no writable folder.
        SourceUnavailable: the disk is full.
    """
    with _spool(name) as spool:
        await _write(parts, spool, name, limits)
        yield spool


class _BoundedFile(io.FileIO):
    """A file that limits the size of each read, because zipfile reads a zip's directory at once, whatever its size."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size if size is not None and 0 <= size <= PIECE_BYTES else PIECE_BYTES + 1)
        if len(data) > PIECE_BYTES:
            raise BadZipFile("the directory is too large")
        return data


def _spool(name: str) -> io.FileIO:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:  # for example in a read-only container
        raise SourceError(f"{name} must be unpacked, and there is no writable folder for it: set TMPDIR") from error


async def _write(parts: AsyncIterator[Part], spool: io.FileIO, name: str, limits: SourceLimits) -> None:
    size = 0
    try:
        async for part in parts:
            size += len(part.text)
            limits.check_decompressed(name, size=size, source_bytes=part.source_bytes)
            await run_in_thread(partial(_write_whole, spool, part.text))
    except OSError as error:
        raise SourceUnavailable(f"{name} cannot be unpacked in TMPDIR: {error.strerror}") from error


def _write_whole(spool: io.FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[spool.write(rest) :]


def _only_file(archive: ZipFile, name: str) -> ZipInfo:
    # is_dir() fails for an empty name
    files = [each for each in archive.infolist() if not each.filename.endswith("/") and not _is_clutter(each.filename)]
    if len(files) != 1:
        raise SourceError(f"{name} is a zip with {len(files) or 'no'} files: it must contain exactly one")
    [file] = files
    if file.flag_bits & _ENCRYPTED:
        raise SourceError(f"{name} is a password-protected zip: remove the password")
    if file.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:  # zipfile decompresses others without a bound
        raise SourceError(f"{name} uses an unsupported compression method: compress it as a standard zip or gzip")
    return file


def _is_clutter(path: str) -> bool:
    """Whether macOS or Windows added this file to a folder."""
    *folders, name = path.split("/")
    return "__MACOSX" in folders or name.startswith("._") or name.lower() in _CLUTTER


async def _parts(archive: ZipFile, info: ZipInfo, file: io.FileIO, name: str) -> AsyncIterator[Part]:
    with _translate_zip_errors(name):
        member = await run_in_thread(partial(archive.open, info))
        while text := await run_in_thread(partial(member.read, _READ_BYTES)):
            yield Part(text, file.tell())


@contextmanager
def _translate_zip_errors(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise SourceError(f"{name} is damaged or truncated (invalid zip data); send it again") from error
