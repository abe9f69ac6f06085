"""Text out of gzip and zip, in parts that are small however well the text was packed."""

from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Some text, and how many bytes of the source have been unpacked with it altogether."""

    text: bytes
    packed: int


def packing(head: bytes) -> Literal["gzip", "zip"] | None:
    """How a source is packed, by its first HEAD_BYTES; names lie."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    return "zip" if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else None
