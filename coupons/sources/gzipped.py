"""Text out of gzip (RFC 1952), as it comes in."""

import zlib
from collections.abc import AsyncIterator, Iterator

from coupons.sources.compression import Part
from coupons.sources.source import PIECE_BYTES, SourceError

_WITH_HEADER = 16 + zlib.MAX_WBITS
_FED_BYTES = 65_536  # what is not unpacked yet is copied for each part that is


async def gunzipped(pieces: AsyncIterator[bytes], name: str) -> AsyncIterator[Part]:
    """The text of all members in a row, as `cat a.gz b.gz` makes them, in parts of at most PIECE_BYTES.

    Raises:
        SourceError: it is damaged (each member's checksum is compared), or cut short.
    """
    members = _Members()
    try:
        async for piece in pieces:
            for start in range(0, len(piece), _FED_BYTES):
                for part in members.unpacked(piece[start : start + _FED_BYTES]):
                    yield part
    except zlib.error as error:
        raise SourceError(f"{name} is damaged: its gzip data or a checksum is wrong; send it again") from error
    if members.unfinished:
        raise SourceError(f"{name} is cut short: its gzip data has no end; send it again")


class _Members:
    """What has been unpacked so far; `unfinished` within a member."""

    def __init__(self) -> None:
        self._fed = 0
        self._member = zlib.decompressobj(_WITH_HEADER)
        self.unfinished = False

    def unpacked(self, packed: bytes) -> Iterator[Part]:
        """As much as can be made of these bytes. Not in a thread: a part takes some 3 ms.

        A part is bounded, so that a bomb's ratio is seen before it has gone off.
        """
        self._fed += len(packed)
        rest, more = packed, True
        while more:
            if not self.unfinished and not (rest := rest.lstrip(b"\0")):  # members may be padded
                return
            text = self._member.decompress(rest, PIECE_BYTES)
            rest = self._member.unused_data or self._member.unconsumed_tail
            more = bool(rest) or len(text) == PIECE_BYTES
            self.unfinished = not self._member.eof
            if self._member.eof:
                self._member = zlib.decompressobj(_WITH_HEADER)
            yield Part(text, self._fed - len(rest))
