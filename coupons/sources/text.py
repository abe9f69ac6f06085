"""The text of a source, decompressed, for the readers of codes and recipients."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from io import FileIO

from coupons.files.content import HEAD_BYTES, recognize
from coupons.files.format import FileFormat
from coupons.sheets import SEPARATOR
from coupons.sources.answers import is_answer_in_words
from coupons.sources.compression import Part, detect_container
from coupons.sources.gzipped import gunzip
from coupons.sources.limits import SourceLimits
from coupons.sources.source import Source, SourceError, rechunk
from coupons.sources.spreadsheet import Spreadsheet, is_document, open_spreadsheet
from coupons.sources.threads import run_in_thread
from coupons.sources.zipped import Archive, spooled


class Text:
    """The text of a source in pieces of PIECE_BYTES, decompressed if the source is gzip or zip. It can be read once.

    A spreadsheet becomes CSV text, of the given `sheet` or of the first one with text. Its line n is the sheet's row n.
    The last piece may be shorter. The same text gives the same pieces in every run, independent of its compression and
    of how its bytes arrive. Only one layer of compression is removed, besides the one of a spreadsheet. Iteration
    raises SourceError and SourceUnavailable.

    `source_bytes` is the number of source bytes consumed by the pieces so far; `received` ones include those of a piece
    or a zip that is not complete. `name` is the source's name without `.gz`. With the first piece, it becomes the name
    of the file in a zip, and gets the name of the sheet. `notices` say what a user should know about a spreadsheet.
    """

    def __init__(self, source: Source, limits: SourceLimits, *, sheet: str | int | None = None) -> None:
        self.name = source.name.removesuffix(".gz")
        self.source_bytes = self.received = 0
        self.notices: list[str] = []
        self._source = source
        self._limits = limits
        self._sheet = sheet
        self._spreadsheet: Spreadsheet | None = None

    def format_for(self, file_format: FileFormat) -> FileFormat:
        """The format of the text: a spreadsheet has no encoding and no separator, so these options are ignored."""
        if self._spreadsheet is None:
            return file_format
        default = FileFormat()
        ignored = [
            option
            for option in ("kind", "separator", "encoding")
            if getattr(file_format, option) not in {getattr(default, option), {"kind": "csv"}.get(option)}
        ]
        if ignored:
            self.notices.append(f"ignored for a spreadsheet: {', '.join(ignored)}")
        return replace(file_format, kind="csv", separator=SEPARATOR, encoding=default.encoding, is_spreadsheet=True)

    def describe(self, read_as: str) -> str:
        """How the text was read: the kind and the name of the sheet instead of the form of the text."""
        if self._spreadsheet is None:
            return read_as
        for part in ("csv, ", "separator TAB, ", ", utf-8"):
            read_as = read_as.replace(part, "", 1)
        return f"{self._spreadsheet.kind}, sheet {self._spreadsheet.sheet!r}, {read_as}"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in rechunk(self._texts()):
            yield piece

    async def _texts(self) -> AsyncIterator[bytes]:
        async for part in self._check_parts():
            self.source_bytes = part.source_bytes
            yield part.text
        self.source_bytes = self.received

    async def _check_parts(self) -> AsyncIterator[Part]:
        size = 0
        async for part in self._unpack(self._received_parts(), is_unpacked=False):
            size += len(part.text)
            self._limits.check_decompressed(self._source.name, size=size, source_bytes=part.source_bytes)
            yield part

    async def _unpack(self, parts: AsyncIterator[Part], *, is_unpacked: bool) -> AsyncIterator[Part]:
        """The parts of the text. `is_unpacked` is whether a layer of compression was removed."""
        head = await _read_head(parts)
        whole = _prepend(head, parts)
        match detect_container(b"".join(part.text for part in head)[:HEAD_BYTES]):
            case "gzip" if not is_unpacked:
                unpacked = self._unpack(gunzip(_texts_of(whole), self._source.name), is_unpacked=True)
            case "zip" | "compound":
                unpacked = self._unpack_file(whole, is_unpacked=is_unpacked)
            case _:
                self._check_plain(head)
                unpacked = whole
        async for part in unpacked:
            yield part

    async def _unpack_file(self, whole: AsyncIterator[Part], *, is_unpacked: bool) -> AsyncIterator[Part]:
        """The parts of a zip or of a spreadsheet, which are read from an unnamed file."""
        async with spooled(whole, self._source.name, self._limits) as spool:
            spool.seek(0)
            archive = (
                await run_in_thread(partial(Archive, spool, self._source.name)) if spool.read(2) == b"PK" else None
            )
            if archive is None or is_document(archive.directory):
                unpacked = self._read_spreadsheet(spool)
            elif is_unpacked:
                raise SourceError(f"{self._source.name} is compressed twice: compress it once")
            else:
                member = archive.open_member(self._limits)
                self.name = member.name
                unpacked = self._unpack(member.parts, is_unpacked=True)
            async for part in unpacked:
                yield part

    async def _read_spreadsheet(self, spool: FileIO) -> AsyncIterator[Part]:
        received = self.received
        async with open_spreadsheet(spool, self.name, self._limits, sheet=self._sheet, source_bytes=received) as (
            spreadsheet,
            parts,
        ):
            self._spreadsheet = spreadsheet
            self.name = f"{self.name}, sheet {spreadsheet.sheet}"
            async for part in parts:
                yield part
        self.notices += spreadsheet.notices

    def _check_plain(self, head: list[Part]) -> None:
        """Check a text that is not a spreadsheet. Raises SourceError for a page that a host has sent instead."""
        if self._sheet is not None:
            raise SourceError(f"{self.name} is not a spreadsheet: omit --sheet")
        host, text = self._source.host, b"".join(part.text for part in head)
        if host and (content := recognize(text[:HEAD_BYTES])):
            raise SourceError(f"{self.name}, which {host} sent, {content}")
        if host and is_answer_in_words(text):
            raise SourceError(
                f"{self.name}: {host} answered with a line of text instead of a list: open the URL in a browser. To"
                " import a code without a digit, upload the file"
            )

    async def _received_parts(self) -> AsyncIterator[Part]:
        """The pieces of the source. Their bytes are counted: a server may declare no length, or send more bytes."""
        async for piece in self._source.pieces:
            self.received += len(piece)
            self._limits.check_size(self._source.name, self.received)
            yield Part(piece, self.received)


async def _read_head(parts: AsyncIterator[Part]) -> list[Part]:
    """The first parts, enough to recognize the content."""
    head: list[Part] = []
    async for part in parts:
        head.append(part)
        if sum(len(part.text) for part in head) >= HEAD_BYTES:
            break
    return head


async def _prepend(head: list[Part], parts: AsyncIterator[Part]) -> AsyncIterator[Part]:
    for part in head:
        yield part
    async for part in parts:
        yield part


async def _texts_of(parts: AsyncIterator[Part]) -> AsyncIterator[bytes]:
    async for part in parts:
        yield part.text
