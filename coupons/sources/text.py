"""The text of a source, decompressed, for the readers of codes and recipients."""

from collections.abc import AsyncIterator

from coupons.sources.compression import HEAD_BYTES, Part, detect_compression
from coupons.sources.gzipped import gunzip
from coupons.sources.limits import SourceLimits
from coupons.sources.source import Source, rechunk
from coupons.sources.zipped import open_member


class Text:
    """The text of a source in pieces of PIECE_BYTES, decompressed if the source is gzip or zip. It can be read once.

    The last piece may be shorter. The same text gives the same pieces in every run, independent of its compression and
    of how its bytes arrive. Only one layer of compression is removed. Iteration raises SourceError and
    SourceUnavailable.

    `source_bytes` is the number of source bytes consumed by the pieces so far; `received` ones include those of a piece
    or a zip that is not complete. `name` is the source's name without
    `.gz`. For a zip, `name` becomes the name of the file in the zip with the first piece.
    """

    def __init__(self, source: Source, limits: SourceLimits) -> None:
        self.name = source.name.removesuffix(".gz")
        self.source_bytes = self.received = 0
        self._source = source
        self._limits = limits

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
        async for part in self._parts():
            size += len(part.text)
            self._limits.check_decompressed(self._source.name, size=size, source_bytes=part.source_bytes)
            yield part

    async def _parts(self) -> AsyncIterator[Part]:
        pieces = self._pieces()
        head = await _head(pieces)
        whole = _prepend(head, pieces)
        match detect_compression(head):
            case "gzip":
                async for part in gunzip(whole, self._source.name):
                    yield part
            case "zip":
                async with open_member(whole, self._source.name, self._limits) as member:
                    self.name = member.name
                    async for part in member.parts:
                        yield part
            case None:
                async for piece in whole:
                    yield Part(piece, self.received)

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The pieces of the source. Their bytes are counted: a server may declare no length, or send more bytes."""
        async for piece in self._source.pieces:
            self.received += len(piece)
            self._limits.check_size(self._source.name, self.received)
            yield piece


async def _head(pieces: AsyncIterator[bytes]) -> bytes:
    """The bytes of the first pieces, enough to detect the compression."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= HEAD_BYTES:
            break
    return head


async def _prepend(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in pieces:
        yield piece
