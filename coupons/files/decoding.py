"""Turns the bytes of a file into whole lines of text. The result does not depend on how the bytes arrive.

A byte order mark determines the encoding; without one, the given encoding is used. The encoding is never guessed. Bytes
that are not text in this encoding raise a `FileError`, which contains the number of the line and suggests encodings in
which the line can be read.
"""

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coupons.errors import UserError
from coupons.files.content import HEAD_BYTES, recognize
from coupons.files.encodings import WINDOW_BYTES, describe_likely, read_likely, suspect_words

MAX_RECORD_CHARS = 65_536
"""Maximum length of a line, or of a CSV record over several lines: an unclosed quote must not swallow the file."""

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

_LINE_END = re.compile(rb"[\r\n]")
_ISO_2022_JP = re.compile(rb"\x1b\$[@B]").search


class FileError(UserError, ValueError):
    """The file is not text or does not match its format. The text is one line with file, line and remedy, no code.

    `line` is the line that the text is about, if another part adds the file and the line.
    """

    def __init__(self, text: str, *, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


class WrongEncoding(FileError):
    """The bytes are not text in the given encoding. `likeliest` is the encoding that fits best, if any does."""

    def __init__(self, text: str, likeliest: str | None) -> None:
        super().__init__(text)
        self.likeliest = likeliest


class OptionError(FileError):
    """An option is wrong, whatever the file contains. So the text names no line."""


@contextmanager
def concerning(line: int) -> Iterator[None]:
    """Errors about the head are about this line, unless they have another one."""
    try:
        yield
    except FileError as error:
        error.line = error.line or line
        raise


class Lines:
    """Turns bytes into whole lines. Only CR, LF and CRLF end a line.

    `feed` returns the number of its first line, and its lines. After a FileError the object cannot be used.
    `is_forced` reads valid UTF-8 in another encoding. `is_secret` keeps whole codes out of error messages.
    """

    def __init__(self, encoding: str, name: str, *, is_forced: bool = False, is_secret: bool = False) -> None:
        self._encoding = codecs.lookup(encoding).name
        self._is_forced = is_forced
        self._may_be_utf_8 = not is_forced and not self._encoding.startswith("utf")
        self._is_secret = is_secret
        self._broken: _BrokenText | None = None
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
        if self._broken:
            self._explain(self._broken, data, final=final)
            return first, []
        text = ""
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            self._broken = self._locate(error, after_cr=bool(self._decoder.getstate()[1] & 1))
        if self._broken:  # outside of the handler: the decoding error contains the data
            self._explain(self._broken, b"", final=final)
            return first, []
        lines = self._cut_and_check(text, final=final)
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
        self._may_be_utf_8 = self._may_be_utf_8 and not mark
        while mark and head.startswith(mark):
            head = head[len(mark) :]
        if not mark and self._encoding == "utf-8":
            self._encoding = _utf_16_without_mark(head[:HEAD_BYTES]) or self._encoding
        if content := recognize(head[:HEAD_BYTES], self._encoding):
            raise FileError(f"{self._name} {content}")
        if self._is_utf_8_without_nuls(head[:HEAD_BYTES], mark):
            raise FileError(
                f"{self._name}: these bytes are valid UTF-8, not {self._encoding}, in which each line end has a NUL."
                " Omit --encoding, or force it with --force-encoding"
            )
        if self._encoding in _NEED_A_MARK:
            raise FileError(
                f"{self._name} has no byte order mark: specify {self._encoding}-le (Windows) or {self._encoding}-be"
            )
        if self._encoding == "utf-8" and _ISO_2022_JP(head[:HEAD_BYTES]):
            raise FileError(f"{self._name} has Japanese escape sequences: specify --encoding iso2022_jp")
        decoder = codecs.getincrementaldecoder(self._encoding)("strict")
        return io.IncrementalNewlineDecoder(decoder, translate=True), head

    def _locate(self, error: UnicodeDecodeError, *, after_cr: bool) -> "_BrokenText":
        """The place of the invalid bytes, and the bytes from the beginning of their line on."""
        start, end = error.start, max(error.end, error.start + 1)
        before = "\r" * after_cr + error.object[:start].decode(self._encoding, "replace")
        line = self._next + len(self._cut_and_check(re.sub(r"\r\n?", "\n", before), final=False))
        begun = self._tail.encode(self._encoding, "replace")
        problem = (
            f"{self._name}, line {line}: the bytes {error.object[start:end][:4].hex(' ')} are not {self._encoding}"
        )
        if self._marked:
            problem += ", although its byte order mark declares it. Fix that line"
        elif self._is_proven():
            problem += ", although earlier lines are. Fix that line"
        else:
            problem += ". Specify the encoding (--encoding)"
        is_unknown = not (self._marked or self._is_proven())
        return _BrokenText(problem, len(begun), is_unknown, bytearray(begun + error.object[start:]))

    def _explain(self, broken: "_BrokenText", data: bytes, *, final: bool) -> None:
        """Raise the error for invalid bytes as soon as enough of the text has arrived to judge its encoding.

        The error depends on a fixed number of bytes, and so not on how they arrive.
        """
        broken.data += data
        window = bytes(broken.data[: broken.start + WINDOW_BYTES])
        if len(window) < broken.start + WINDOW_BYTES and not final:
            return
        end = _LINE_END.search(window, broken.start)
        line = window[: end.start()] if end else window
        judged = window if broken.is_encoding_unknown else line
        likely = describe_likely(judged, exclude=self._encoding, is_secret=self._is_secret)
        likely = "" if self._marked else likely  # a mark overrides each encoding that the user specifies
        best = read_likely(judged, exclude=self._encoding)[0].encodings[0] if likely else None
        raise WrongEncoding(f"{broken.problem}; likely {likely}" if likely else broken.problem, best)

    def _is_proven(self) -> bool:
        """Whether an earlier line is not ASCII and valid UTF-8. Then no other encoding helps."""
        return self._encoding == "utf-8" and not self._is_ascii

    def _is_utf_8_without_nuls(self, head: bytes, mark: bytes) -> bool:
        """Whether UTF-8 would be read as UTF-16 or UTF-32, in which each line end and each blank has a NUL."""
        is_wide = self._encoding.startswith(_NEED_A_MARK)
        return is_wide and not (mark or self._is_forced) and b"\0" not in head and _is_utf_8(head)

    def _cut_and_check(self, text: str, *, final: bool) -> list[str]:
        """The complete lines of the text. Raises FileError for the first line with a problem of any kind."""
        is_ascii = text.isascii() and self._tail.isascii()
        lines = self._cut(text, final=final)
        problem = self._find_problem([*lines, self._tail], has_nuls="\0" in text)
        if not is_ascii and self._may_be_utf_8:
            self._check_utf_8(lines if problem is None else lines[: problem[0]])
        if problem:
            raise FileError(f"{self._name}, line {self._next + problem[0]}: {problem[1]}")
        if not is_ascii and self._is_ascii:
            self._is_ascii = all(map(str.isascii, lines))
        return lines

    def _cut(self, text: str, *, final: bool) -> list[str]:
        lines = (self._tail + text).split("\n")
        self._tail = lines.pop()
        return lines + [self._tail] * (final and self._tail != "")

    def _find_problem(self, lines: list[str], *, has_nuls: bool) -> tuple[int, str] | None:
        """The index of the first line that is too long or has many NULs, and the problem. The last line is incomplete.

        In a file that is not text, many lines have many NULs. A single one only makes its line rejected later.
        """
        if not has_nuls and max(map(len, lines)) <= MAX_RECORD_CHARS:
            return None
        for index, line in enumerate(lines):
            if len(line) > MAX_RECORD_CHARS:
                return index, f"exceeds the limit of {MAX_RECORD_CHARS} characters per line"
            if index < len(lines) - 1 and line.count("\0") >= max(_MANY_NULS, len(line) / 4):
                return index, (
                    "NUL bytes (00). This is not text, or it is UTF-16 without a byte order mark: then specify"
                    " utf-16-le or utf-16-be"
                )
        return None

    def _check_utf_8(self, lines: list[str]) -> None:
        """Raise FileError if the first line that is not ASCII is valid UTF-8: then the given encoding is wrong.

        Text in another encoding is hardly ever valid UTF-8 (1 of 1,022 names and cities of a test).
        """
        for number, line in enumerate(lines, self._next):
            if line.isascii():
                continue
            self._may_be_utf_8 = False
            try:
                utf_8 = line.encode(self._encoding).decode()
            except UnicodeError:
                return
            if utf_8.isascii():
                if _keeps_ascii(self._encoding):  # ISO-2022 and HZ write letters as ASCII with escape sequences
                    return
                raise FileError(
                    f"{self._name}, line {number}: these bytes are ASCII; {self._encoding} would read other characters."
                    " Omit --encoding, or force it with --force-encoding"
                )
            wrong, right = (suspect_words(text, is_secret=self._is_secret) for text in (line, utf_8))
            raise WrongEncoding(
                f"{self._name}, line {number}: these bytes are valid UTF-8; {self._encoding} would read {wrong!r}"
                f" instead of {right!r}. Omit --encoding, or force it with --force-encoding",
                "utf-8",
            )


def _is_utf_8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _keeps_ascii(encoding: str) -> bool:
    """Whether the bytes of ASCII letters are these letters, as in all encodings but those of mainframes."""
    return b"Az09;@".decode(encoding, "replace") == "Az09;@"


@dataclass(slots=True)
class _BrokenText:
    """Bytes that are not text: the `problem` in words, and the `data` of the line, which is invalid at `start`.

    `is_encoding_unknown` is whether the following lines are likely to have the same encoding as this line.
    """

    problem: str
    start: int
    is_encoding_unknown: bool
    data: bytearray


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
