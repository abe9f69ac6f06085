"""A source of any kind, and its errors."""

import posixpath
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from coupons.errors import UserError

PIECE_BYTES = 1_048_576
"""Size of a piece. Readers get the text of a source in pieces of this size."""


class SourceError(UserError):
    """A source is not allowed, not readable or not valid: a retry cannot help."""


class SourceUnavailable(UserError):
    """A source cannot be reached or read to its end at present: a later retry may help."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of one file.

    `name` is the file name without path or query; errors mention it. `size` is the number of bytes before
    decompression, None if unknown. `pieces` yields byte strings of any size, once; it raises SourceError or
    SourceUnavailable. `host` is the host that sent the bytes, if it may have sent another page instead of the file.
    """

    name: str
    size: int | None
    pieces: AsyncIterator[bytes]
    host: str = ""


def file_name(path: str, default: str) -> str:
    """The last part of a path, with ? for unprintable characters. Returns `default` if the path ends with a slash."""
    name = posixpath.basename(path)
    return "".join(character if character.isprintable() else "?" for character in name) or default


async def rechunk(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The bytes of the chunks, in pieces of PIECE_BYTES. The last piece may be shorter."""
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES])
            del buffer[:PIECE_BYTES]
    if buffer:
        yield bytes(buffer)
