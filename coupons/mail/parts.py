"""Text and HTML parts. Constant chunks are encoded once, varying chunks for each recipient.

Quoted-printable (RFC 2045 6.7) and dot-stuffing work line by line, so chunks of whole lines can be encoded separately.
In a mail of 2.6 kB (text and HTML) of which 124 octets vary, encoding takes 3.6 µs instead of 9.9 µs, or 5.7 µs instead
of 15.8 µs in quoted-printable.
"""

from binascii import b2a_qp
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from coupons.mail.envelope import MAX_LINE, dot_stuff
from coupons.templates.analysis import Chunk

_ASCII = b"\t\r\n" + bytes(range(0x20, 0x7F))
_UTF8 = bytes(range(0x80, 0x100))


class Encoding(IntEnum):
    """The encodings in ascending order. A part needs the greatest encoding that one of its chunks needs."""

    SEVEN_BIT = 0
    EIGHT_BIT = 1
    QUOTED_PRINTABLE = 2


_NAMES = {
    Encoding.SEVEN_BIT: "7bit",
    Encoding.EIGHT_BIT: "8bit",
    Encoding.QUOTED_PRINTABLE: "quoted-printable",
}


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part with its header fields. `same[encoding]` are the encoded constant chunks around the varying chunks."""

    same: tuple[tuple[bytes, ...], ...]
    needs: Encoding
    mark: bytes
    is_one_chunk: bool
    """Whether the whole part is one varying chunk. Such a part may be empty, but still needs one line."""

    def pieces(self, varying: str, *, eight_bit: bool) -> tuple[Encoding, Sequence[bytes]]:
        """The part for one recipient, dot-stuffed. `varying` contains its varying chunks, with a mark before each."""
        if len(self.same[0]) == 1:
            encoding = self._encoding(self.needs, eight_bit=eight_bit)
            return encoding, self.same[encoding]
        lines = _crlf(varying)
        if not lines.endswith(b"\n") or (self.is_one_chunk and lines == self.mark):
            lines += b"\r\n"
        encoding = self._encoding(max(self.needs, _needed_encoding(lines)), eight_bit=eight_bit)
        same = self.same[encoding]
        pieces = [b""] * (2 * len(same) - 1)
        pieces[::2] = same
        pieces[1::2] = dot_stuff(_encode(lines, encoding)).split(self.mark)[1:]
        return encoding, pieces

    @staticmethod
    def _encoding(needed: Encoding, *, eight_bit: bool) -> Encoding:
        return Encoding.QUOTED_PRINTABLE if needed is Encoding.EIGHT_BIT and not eight_bit else needed


def text_part(subtype: str, chunks: Sequence[Chunk], mark: str) -> TextPart:
    """A part with these chunks. `mark` is the mark of the `Template`. A last line without a line break gets one."""
    same = _constant_pieces(chunks)
    if not chunks or not (chunks[-1].varies or same[-1].endswith("\n")):
        same[-1] += "\n"
    return TextPart(
        same=tuple(_encode_constant(subtype, same, encoding) for encoding in Encoding),
        needs=max(_needed_encoding(_crlf(text)) for text in same),
        mark=_crlf(mark),
        is_one_chunk=[chunk.varies for chunk in chunks] == [True],
    )


def _constant_pieces(chunks: Sequence[Chunk]) -> list[str]:
    same = [""]
    for chunk in chunks:
        if chunk.varies:
            same.append("")
        else:
            same[-1] += chunk.source
    return same


def _encode_constant(subtype: str, same: Sequence[str], encoding: Encoding) -> tuple[bytes, ...]:
    head = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {_NAMES[encoding]}\r\n\r\n"
    first, *further = (dot_stuff(_encode(_crlf(text), encoding)) for text in same)
    return head.encode("ascii") + first, *further


def _crlf(text: str) -> bytes:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "\r\n").encode()


def _needed_encoding(lines: bytes) -> Encoding:
    if len(lines) > MAX_LINE and max(map(len, lines.split(b"\r\n"))) > MAX_LINE:
        return Encoding.QUOTED_PRINTABLE
    beyond_ascii = lines.translate(None, _ASCII)
    if not beyond_ascii:
        return Encoding.SEVEN_BIT
    return Encoding.QUOTED_PRINTABLE if beyond_ascii.translate(None, _UTF8) else Encoding.EIGHT_BIT


def _encode(lines: bytes, encoding: Encoding) -> bytes:
    return b2a_qp(lines, istext=True) if encoding is Encoding.QUOTED_PRINTABLE else lines
