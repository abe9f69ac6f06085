"""What the readers of codes and recipients get: text, whatever it came in."""

from collections.abc import AsyncIterator

from coupons.sources.compression import HEAD_BYTES, Part, packing
from coupons.sources.gzipped import gunzipped
from coupons.sources.limits import Rules
from coupons.sources.source import PIECE_BYTES, Source
from coupons.sources.zipped import only_member


class Text:
    """A source's text, unpacked if it is gzip or zip, in pieces of PIECE_BYTES; the last one may be shorter.

    So the same text gives the same pieces in every run, however its bytes come in and however they are packed. To be
    read once; raises SourceError and SourceInterrupted. What is packed twice is not unpacked twice.

    `read` is how many bytes of the source are in the pieces so far. `name` is what the text is called: the source's
    name without `.gz`, and from the first piece on that of the file in a zip.
    """

    def __init__(self, source: Source, rules: Rules) -> None:
        self.name = source.name.removesuffix(".gz")
        self.read = 0
        self._source = source
        self._rules = rules
        self._received = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = bytearray()
        async for part in self._checked():
            held += part.text
            self.read = part.packed
            while len(held) >= PIECE_BYTES:
                yield bytes(held[:PIECE_BYTES])
                del held[:PIECE_BYTES]
        self.read = self._received
        if held:
            yield bytes(held)

    async def _checked(self) -> AsyncIterator[Part]:
        unpacked = 0
        async for part in self._parts():
            unpacked += len(part.text)
            self._rules.check_unpacked(self._source.name, unpacked=unpacked, packed=part.packed)
            yield part

    async def _parts(self) -> AsyncIterator[Part]:
        pieces = self._pieces()
        head = await _head(pieces)
        whole = _after(head, pieces)
        match packing(head):
            case "gzip":
                async for part in gunzipped(whole, self._source.name):
                    yield part
            case "zip":
                async with only_member(whole, self._source.name, self._rules) as member:
                    self.name = member.name
                    async for part in member.parts:
                        yield part
            case None:
                async for piece in whole:
                    yield Part(piece, self._received)

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The source's own, counted: a server may send more than it said, or not have said."""
        async for piece in self._source.pieces:
            self._received += len(piece)
            self._rules.check_size(self._source.name, self._received)
            yield piece


async def _head(pieces: AsyncIterator[bytes]) -> bytes:
    """The first pieces, until their bytes tell how the source is packed."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= HEAD_BYTES:
            break
    return head


async def _after(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in pieces:
        yield piece
