"""Reads the codes of a command. Each line is one JSON string, so that no code is mistaken for file syntax."""

import json
from typing import ClassVar

from coupons.files.codes import CheckedCodes, check_codes


class InlineReader:
    """Reads codes like `CodeReader`. The line number is the position of the code in the command."""

    description = "codes of the command"
    notices: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self._lines = 0
        self._tail = b""

    def feed(self, data: bytes) -> CheckedCodes:
        *lines, self._tail = (self._tail + data).split(b"\n")
        first, self._lines = self._lines + 1, self._lines + len(lines)
        return check_codes(range(first, first + len(lines)), [json.loads(line) for line in lines])

    def finish(self) -> CheckedCodes:
        return CheckedCodes([], [], [], 0)
