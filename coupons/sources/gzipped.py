"""Streaming gzip decompression (RFC 1952)."""

import zlib
from collections.abc import AsyncIterator, Iterator

from coupons.sources.compression import Part
from coupons.sources.source import PIECE_BYTES, SourceError

_WITH_HEADER = 16 + zlib.MAX_WBITS
_FED_BYTES = 65_536  # kept small because zlib copies the pending input for every part of the output


async def gunzip(pieces: AsyncIterator[bytes], name: str) -> AsyncIterator[Part]:
    """The text of all concatenated gzip members (`cat a.gz b.gz`), in parts of at most PIECE_BYTES.

    Raises SourceError if the data are damaged (each member's checksum is verified) or truncated.
    """
    members = _Members()
    try:
        async for piece in pieces:
            for start in range(0, len(piece), _FED_BYTES):
                for part in members.decompress(piece[start : start + _FED_BYTES]):
                    yield part
    except zlib.error as error:
        raise SourceError(f"{name} is damaged (invalid gzip data or checksum); send it again") from error
    if members.unfinished:
        raise SourceError(f"{name} is truncated; send it again")


class _Members:
    """Decompresses members one after another. `unfinished` is true within a member."""

    def __init__(self) -> None:
        self._fed = 0
        self._member = zlib.decompressobj(_WITH_HEADER)
        self.unfinished = False

    def decompress(self, compressed: bytes) -> Iterator[Part]:
        """Yield the output for these bytes. A part takes about 3 ms, so this needs no thread.

        The size of a part is limited, so that the caller detects a decompression bomb early.
        """
        self._fed += len(compressed)
        rest, more = compressed, True
        while more:
            if not self.unfinished and not (rest := rest.lstrip(b"\0")):  # padding between members
                return
            text = self._member.decompress(rest, PIECE_BYTES)
            rest = self._member.unused_data or self._member.unconsumed_tail
            more = bool(rest) or len(text) == PIECE_BYTES
            self.unfinished = not self._member.eof
            if self._member.eof:
                self._member = zlib.decompressobj(_WITH_HEADER)
            yield Part(text, self._fed - len(rest))
