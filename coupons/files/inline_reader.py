"""Reads the codes of a command, and codes or recipients that an import removed. Their form has no file syntax."""

import json
from typing import ClassVar

from coupons.files.codes import CheckedCodes, check_codes
from coupons.files.recipient_reader import CheckedRecipients


class InlineReader:
    """Reads codes like `CodeReader`. Each line is one JSON string; the line number is the position of the code.

    Blank lines have no number.
    """

    notices: ClassVar[list[str]] = []

    def __init__(self, description: str) -> None:
        self.description = description
        self._lines = _NumberedLines()

    def feed(self, data: bytes) -> CheckedCodes:
        numbers, lines = self._lines.feed(data)
        return check_codes(numbers, [json.loads(line) for line in lines])

    def finish(self) -> CheckedCodes:
        return CheckedCodes([], [], [], 0)


class RemovedRecipientReader:
    """Reads recipients that an import removed. They were checked before, and are restored as they were.

    A line has three JSON texts with tabs between them: the key of the address, the address and the attributes.
    """

    description = "removed recipients"
    notices: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self._lines = _NumberedLines()

    def feed(self, data: bytes) -> CheckedRecipients:
        numbers, lines = self._lines.feed(data)
        cells = [line.decode().split("\t") for line in lines]
        keys, addresses = ([json.loads(row[place]) for row in cells] for place in (0, 1))
        return CheckedRecipients(numbers, keys, addresses, [row[2] for row in cells], [], 0)

    def finish(self) -> CheckedRecipients:
        return CheckedRecipients([], [], [], [], [], 0)


class _NumberedLines:
    """The lines of a text that arrives in pieces, without blank lines, and their numbers."""

    def __init__(self) -> None:
        self._count = 0
        self._tail = b""

    def feed(self, data: bytes) -> tuple[range, list[bytes]]:
        *whole, self._tail = (self._tail + data).split(b"\n")
        lines = [line for line in whole if line]
        first, self._count = self._count + 1, self._count + len(lines)
        return range(first, first + len(lines)), lines
