"""What a source is, whatever it comes from, and how reading it ends badly."""

import posixpath
from collections.abc import AsyncIterator
from dataclasses import dataclass

from coupons.errors import UserError

PIECE_BYTES = 1_048_576
"""In which a source's text is handed on."""


class SourceError(UserError):
    """A source may not be read, cannot be, or is not what it should be: trying again is of no use."""


class SourceInterrupted(UserError):
    """A source could not be read to its end for now: trying again later may help."""


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes of one file.

    `name` is what errors call it: the file's, without path or query. `size` is in bytes as stored or sent, None if
    that is not known. `pieces` are of any size and come once; they raise SourceError or SourceInterrupted.
    """

    name: str
    size: int | None
    pieces: AsyncIterator[bytes]


def file_name(path: str, otherwise: str) -> str:
    """The last part of a path, fit to be shown on one line."""
    name = posixpath.basename(path)
    return "".join(character if character.isprintable() else "?" for character in name) or otherwise
