"""Parse a relay's replies, regardless of how their bytes are split into chunks."""

import re

MAX_EXPLANATION = 300  # characters
MAX_LINE = 4_096  # octets; RFC 5321 4.5.3.1.5 says 512, and some relays send more
MAX_LINES = 100  # per reply

NO_REPLY = "no SMTP reply"

_NUMBER = "(?:0|[1-9][0-9]{,2})"
_CODES = re.compile(rf"([2-5][0-5][0-9])(?![^ -])(?:[ -]([245]\.{_NUMBER}\.{_NUMBER})(?!\S))?")  # RFC 3463 2
_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])(.*))?", re.DOTALL)  # RFC 5321 4.2


class OutOfStepError(Exception):
    """Client and relay no longer agree which reply belongs to which command, so no later reply can be trusted.

    The text has no text of the relay.
    """


class ReplyReader:
    """Turns bytes into whole replies, such as `b"250 2.1.0 ok"`. A multi-line reply becomes one line with one code."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []

    @property
    def is_partial(self) -> bool:
        """Whether the beginning of a reply was read, but not yet its end."""
        return bool(self._rest or self._lines)

    def read(self, data: bytes) -> list[bytes]:
        """Return the replies that these bytes complete. Raises OutOfStepError if the bytes are not an SMTP reply."""
        *lines, self._rest = (self._rest + data if self._rest else data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise OutOfStepError("the relay's reply is too long")
        replies: list[bytes] = []
        for line in lines:
            self._read_line(line.removesuffix(b"\r"), replies)
        return replies

    def _read_line(self, line: bytes, replies: list[bytes]) -> None:
        found = _LINE.fullmatch(line)
        if found is None or len(line) > MAX_LINE:
            raise OutOfStepError("the relay sent an invalid reply")
        if found[2] == b"-":
            self._add_line(line, found[1])
        elif self._lines:
            self._add_line(line, found[1])
            replies.append(found[1] + b" " + b" ".join(each[4:].strip() for each in self._lines))
            self._lines = []
        else:
            replies.append(line)

    def _add_line(self, line: bytes, code: bytes) -> None:
        self._lines.append(line)
        if not self._lines[0].startswith(code):
            raise OutOfStepError("the relay's reply has two codes")
        if len(self._lines) > MAX_LINES:
            raise OutOfStepError("the relay's reply has too many lines")


def reply_text(reply: bytes) -> str:
    """Return a reply as one printable line."""
    return one_line(reply.decode("utf-8", "replace"))


def one_line(text: str) -> str:
    """Return the text without control characters, cut to MAX_EXPLANATION characters."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return text[:MAX_EXPLANATION].strip()


def reply_codes(reply: str) -> str:
    """Return the basic code of a reply and its enhanced code, such as `550 5.7.1`, or NO_REPLY if it has no code.

    The text of a reply may contain the recipient's address, the sender's account or a part of the mail. So logs and
    reasons show only this. An enhanced code counts if it follows RFC 3463 and has the class of the basic code (RFC
    2034 4).
    """
    found = _CODES.match(reply)
    if found is None:
        return NO_REPLY
    basic, enhanced = found[1], found[2]
    return f"{basic} {enhanced}" if enhanced and enhanced[0] == basic[0] else basic
