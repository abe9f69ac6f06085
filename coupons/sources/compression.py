"""Common parts of gzip and zip decompression. The output comes in small parts, even at a high compression ratio."""

from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the text, and the number of source bytes that were consumed up to the end of this part."""

    text: bytes
    source_bytes: int


def detect_compression(head: bytes) -> Literal["gzip", "zip"] | None:
    """The compression of a source, detected by its first HEAD_BYTES because names are unreliable."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    return "zip" if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else None
