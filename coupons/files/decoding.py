"""Turns the bytes of a file into whole lines of text. The result does not depend on how the bytes arrive.

A byte order mark determines the encoding; without one, the given encoding is used. The encoding is never guessed. Bytes
that are not text in this encoding raise a `FileError`, which contains the number of the line and suggests encodings in
which the line can be read.
"""

import codecs
import io
import re

from coupons.errors import UserError
from coupons.files.content import HEAD_BYTES, recognize

MAX_RECORD_CHARS = 65_536
"""Maximum length of a line, or of a CSV record over several lines: an unclosed quote must not swallow the file."""

MAX_LIKELY = 3  # encodings that an error message suggests

_MANY_NULS = 4  # in a line; in UTF-16 read as UTF-8, every second character is a NUL
_BYTE_ORDER_MARKS = {  # UTF-32 comes first: its little-endian mark begins with the mark of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_NEED_A_MARK = ("utf-16", "utf-32")
_MIN_PAIRS = 4  # characters of a file that is read as UTF-16 without a byte order mark

# Encodings that programs in Western and Central Europe write, the most common first. In most of them every byte is a
# character, so only the plausibility of the text tells them apart: "ü" in cp1252 is a superscript 3 in cp850.
_CANDIDATES = ("utf-8", "utf-16-le", "utf-16-be", "cp1252", "iso-8859-15", "cp1250", "cp850", "mac-roman")
_COMMON = frozenset("ÄÖÜäöüßÀàÂâÇçÉéÈèÊêËëÎîÏïÔôÙùÛûÑñÁáÍíÓóÚúÅåÆæØøŒœ€\t\u00a0")
_QUOTES_AND_DASHES = frozenset("\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2026\u00a7\u00b0\u00ab\u00bb")
_LAST_LATIN = "\u024f"


class FileError(UserError, ValueError):
    """The file is not text or does not match its format. The text is one line with file, line and remedy, no code."""


class Lines:
    """Turns bytes into whole lines. Only CR, LF and CRLF end a line.

    `feed` returns the number of its first line, and its lines. After a FileError the object cannot be used.
    """

    def __init__(self, encoding: str, name: str) -> None:
        self._encoding = codecs.lookup(encoding).name
        self._name = name
        self._marked = False
        self._head = b""
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._is_ascii = True
        self._next = 1
        self._tail = ""
        self._is_empty = True

    @property
    def encoding(self) -> str:
        """The encoding in words. A byte order mark is mentioned once the first line was read."""
        return f"{self._encoding} (byte order mark)" if self._marked else self._encoding

    def feed(self, data: bytes, *, final: bool = False) -> tuple[int, list[str]]:
        if self._decoder is None:
            self._head += data
            if len(self._head) < HEAD_BYTES and not final:
                return self._next, []
            self._decoder, data = self._open(self._head)
        first = self._next
        lines = self._cut(self._decode(self._decoder, data, final=final), final=final)
        self._next += len(lines)
        self._is_empty = self._is_empty and not any(map(str.strip, lines))
        if final and self._is_empty:
            raise FileError(f"{self._name} is empty")
        return first, lines

    def _open(self, head: bytes) -> tuple[io.IncrementalNewlineDecoder, bytes]:
        """The decoder, and the bytes after the byte order mark, which overrides the given encoding.

        Programs that join or convert files sometimes write the mark twice. It is read as one.
        """
        mark = next((mark for mark in _BYTE_ORDER_MARKS if head.startswith(mark)), b"")
        self._marked, self._encoding = bool(mark), _BYTE_ORDER_MARKS.get(mark, self._encoding)
        while mark and head.startswith(mark):
            head = head[len(mark) :]
        if not mark and self._encoding == "utf-8":
            self._encoding = _utf_16_without_mark(head[:HEAD_BYTES]) or self._encoding
        if content := recognize(head[:HEAD_BYTES], self._encoding):
            raise FileError(f"{self._name} {content}")
        if self._encoding in _NEED_A_MARK:
            raise FileError(
                f"{self._name} has no byte order mark: specify {self._encoding}-le (Windows) or {self._encoding}-be"
            )
        decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        return io.IncrementalNewlineDecoder(decoder, translate=True), head

    def _decode(self, decoder: io.IncrementalNewlineDecoder, data: bytes, *, final: bool) -> str:
        try:
            text = decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise self._decoding_error(
                error, after_cr=bool(decoder.getstate()[1] & 1)
            ) from None  # the original error contains the data
        self._is_ascii = self._is_ascii and text.isascii()
        return text

    def _decoding_error(self, error: UnicodeDecodeError, *, after_cr: bool) -> FileError:
        """The error for invalid bytes. It does not depend on how the bytes arrive.

        Suggested encodings are judged only by the part of the line up to the invalid bytes.
        """
        start, end = error.start, max(error.end, error.start + 1)
        before = "\r" * after_cr + error.object[:start].decode(self._encoding, "replace")
        line = self._next + len(self._cut(re.sub(r"\r\n?", "\n", before), final=False))
        begun = self._tail.encode(self._encoding, "replace")
        likely = likely_encodings(begun + error.object[start:end], exclude=self._encoding)
        return FileError(
            f"{self._name}, line {line}: the bytes {error.object[start:end][:4].hex(' ')} are not {self._encoding}"
            f"{self._remedy(before)}{_suggestion(likely)}"
        )

    def _remedy(self, before: str) -> str:
        """How to fix the error. If the encoding of the file is certain, the user is not told to specify another one.

        Earlier non-ASCII text that is valid UTF-8 makes UTF-8 certain.
        """
        if self._marked:
            return ", although its byte order mark declares it. Fix that line"
        if self._encoding == "utf-8" and not (self._is_ascii and before.isascii()):
            return ", although earlier lines are. Fix that line"
        return ". Specify the encoding"

    def _cut(self, text: str, *, final: bool) -> list[str]:
        text = self._tail + text
        lines = text.split("\n")
        if max(map(len, lines)) > MAX_RECORD_CHARS:
            number = next(number for number, line in enumerate(lines, self._next) if len(line) > MAX_RECORD_CHARS)
            raise FileError(f"{self._name}, line {number}: exceeds the limit of {MAX_RECORD_CHARS} characters per line")
        self._tail = lines.pop()
        lines += [self._tail] if final and self._tail else []
        if "\0" in text:
            self._check_nuls(lines)
        return lines

    def _check_nuls(self, lines: list[str]) -> None:
        """Raise FileError for many NULs: then the file is not text. A single NUL only makes its line rejected later."""
        for number, line in enumerate(lines, self._next):
            if line.count("\0") >= max(_MANY_NULS, len(line) / 4):
                raise FileError(
                    f"{self._name}, line {number}: NUL bytes (00). This is not text, or it is UTF-16 without a byte"
                    " order mark: then specify utf-16-le or utf-16-be"
                )


def _utf_16_without_mark(head: bytes) -> str | None:
    """The UTF-16 encoding of text without a byte order mark, if at least half of it is ASCII.

    This is not a guess: text in any other encoding contains no NUL, and here each NUL is in the same half of a pair.
    """
    low, high = head[0::2].count(0), head[1::2].count(0)
    if min(low, high) or max(low, high) < max(_MIN_PAIRS, len(head) / 4):
        return None
    encoding = "utf-16-le" if high else "utf-16-be"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None
    return encoding if all(character.isprintable() or character.isspace() for character in text) else None


def likely_encodings(line: bytes, exclude: str) -> list[str]:
    """At most three encodings, without `exclude`, in which the beginning of a line is Latin text. The best is first."""
    readings = {encoding: _strangeness(line, encoding) for encoding in _CANDIDATES if encoding != exclude}
    found = [(strangeness, encoding) for encoding, strangeness in readings.items() if strangeness is not None]
    return [encoding for _, encoding in sorted(found, key=lambda reading: reading[0])][:MAX_LIKELY]


def _strangeness(line: bytes, encoding: str) -> int | None:
    """How strange the text is: 0 if every character is common; None if the bytes are not text or not mostly Latin."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(line)  # the line may end inside a character
    except UnicodeDecodeError:
        return None
    if not text or not all(character.isprintable() or character in _COMMON for character in text):
        return None
    marks = [_strange(character) for character in text]
    return None if marks.count(2) * 2 > len(marks) else sum(marks)


def _strange(character: str) -> int:
    if character.isascii() or character in _COMMON:
        return 0
    return 1 if character in _QUOTES_AND_DASHES or (character.isalpha() and character <= _LAST_LATIN) else 2


def _suggestion(encodings: list[str]) -> str:
    *others, last = encodings or [""]
    return f"; likely {', '.join(others)}{' or ' * bool(others)}{last}" if last else ""
