"""Common parts of gzip and zip decompression. The output comes in small parts, even at a high compression ratio."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the text, and the number of source bytes that were consumed up to the end of this part."""

    text: bytes
    source_bytes: int


def detect_container(head: bytes) -> Literal["gzip", "zip", "compound"] | None:
    """How a source is packed, detected by its first bytes because names are unreliable.

    A spreadsheet is a zip or a compound file ([MS-CFB]).
    """
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return "compound"
    return "zip" if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else None
