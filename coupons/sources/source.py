"""A source of any kind, and its errors."""

import posixpath
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from coupons.errors import UserError

PIECE_BYTES = 1_048_576
"""Size of the pieces in which readers get the text of a source."""


class SourceError(UserError):
    """A source is not allowed, not readable or not valid: a retry cannot help."""


class SourceUnavailable(UserError):
    """A source cannot be reached or read to its end at present: a later retry may help."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of one file.

    Errors show `name`: the file name, without path or query. `size` is in bytes as stored or sent, None if unknown.
    `pieces` have any size and can be read once; they raise SourceError or SourceUnavailable.
    """

    name: str
    size: int | None
    pieces: AsyncIterator[bytes]


def file_name(path: str, default: str) -> str:
    """The last part of a path, printable on one line."""
    name = posixpath.basename(path)
    return "".join(character if character.isprintable() else "?" for character in name) or default


async def rechunk(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of PIECE_BYTES; the last one may be shorter."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES])
            del buffer[:PIECE_BYTES]
    if buffer:
        yield bytes(buffer)
