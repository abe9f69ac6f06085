"""Text out of a zip that holds one file."""

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
from coupons.sources.limits import Rules
from coupons.sources.source import PIECE_BYTES, SourceError, SourceInterrupted, file_name
from coupons.sources.threads import in_thread

_READ_BYTES = 262_144  # read ahead of packed data too: a bomb's ratio is seen at most 200 times as many bytes late
_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4
_DOCUMENTS = {  # by a file that each of them has within
    "xl/workbook.xml": "an Excel workbook",
    "[Content_Types].xml": "an Office document",
    "META-INF/manifest.xml": "an OpenDocument file",
}
_DAMAGE = (  # what zipfile raises, by 250,000 damaged files
    BadZipFile,
    EOFError,
    IndexError,
    NotImplementedError,  # its name for a packing that it does not know
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


@asynccontextmanager
async def only_member(pieces: AsyncIterator[bytes], name: str, rules: Rules) -> AsyncIterator[Member]:
    """The one file in a zip. As a zip's directory stands at its end, it is first written to a file without a name.

    Raises:
        SourceError: it holds several files or none, needs a password, is damaged, or unpacks to too much; or nothing
            can be written here at all.
        SourceInterrupted: this machine's disk has no room for it.
    """
    with _spool(name) as spool:
        await _write(pieces, spool, name)
        with _told(name):
            file = _Sparing(spool.fileno(), closefd=False)
            archive = await in_thread(partial(ZipFile, file))
            info = _only_file(archive, name)
            rules.check_unpacked(name, unpacked=info.file_size, packed=info.compress_size)
        yield Member(file_name(info.filename, name), _parts(archive, info, file, name))


class _Sparing(io.FileIO):
    """A file that is not read in one go: zipfile does so with whatever a zip calls its directory, gigabytes too."""

    def read(self, size: int | None = -1, /) -> bytes:
        some = super().read(size if size is not None and 0 <= size <= PIECE_BYTES else PIECE_BYTES + 1)
        if len(some) > PIECE_BYTES:
            raise BadZipFile("the directory is too large")
        return some


def _spool(name: str) -> io.FileIO:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as error:  # a read-only container, say
        raise SourceError(
            f"{name} is a zip, and there is no folder to unpack it in: name one that can be written to (TMPDIR)"
        ) from error


async def _write(pieces: AsyncIterator[bytes], spool: io.FileIO, name: str) -> None:
    try:
        async for piece in pieces:
            await in_thread(partial(_write_whole, spool, piece))
    except OSError as error:
        raise SourceInterrupted(f"{name} cannot be unpacked in TMPDIR: {error.strerror}") from error


def _write_whole(spool: io.FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[spool.write(rest) :]


def _only_file(archive: ZipFile, name: str) -> ZipInfo:
    files = [each for each in archive.infolist() if not each.is_dir() and not each.filename.startswith("__MACOSX/")]
    names = {each.filename for each in files}
    for inner, document in _DOCUMENTS.items():
        if inner in names:
            raise SourceError(f"{name} is {document}: save it as CSV")
    if len(files) != 1:
        raise SourceError(f"{name} is a zip with {len(files) or 'no'} files: it must hold exactly one")
    [file] = files
    if file.flag_bits & _ENCRYPTED:
        raise SourceError(f"{name} is a zip with a password: pack it without one")
    if file.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:  # zipfile unpacks the others without a bound
        raise SourceError(f"{name} is packed in a way that few can read: pack it as a plain zip, or gzip")
    return file


async def _parts(archive: ZipFile, info: ZipInfo, file: io.FileIO, name: str) -> AsyncIterator[Part]:
    with _told(name):
        packed = await in_thread(partial(archive.open, info))
        while text := await in_thread(partial(packed.read, _READ_BYTES)):
            yield Part(text, file.tell())


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise SourceError(f"{name} is damaged or cut short: its zip data is wrong; send it again") from error
