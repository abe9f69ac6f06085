"""Common parts of gzip and zip decompression: the output comes in small parts, whatever the compression ratio."""

from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Some text, and the number of source bytes consumed up to its end."""

    text: bytes
    source_bytes: int


def detect_compression(head: bytes) -> Literal["gzip", "zip"] | None:
    """The compression of a source by its first HEAD_BYTES, because names are unreliable."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    return "zip" if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else None
