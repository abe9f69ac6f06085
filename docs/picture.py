"""Writes docs/demo.svg, a picture of the terminal after `coupons demo`; `make picture` runs it."""

import io
import os
import pty
import re
import sys
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

PICTURE = Path(__file__).with_name("demo.svg")
COUPONS = Path(sys.executable).with_name("coupons")
COLUMNS, LINES = 140, 200
WEB_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Matches the web fonts that Rich links to, because the picture must not load anything."""
COLOURS = {"default": None, "brown": "yellow"}
"""Colours whose names differ between pyte and Rich."""


def record() -> pyte.Screen:
    """Run the demo and return its final screen, on a terminal that is tall enough for all of it."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)

    def read(terminal: int) -> bytes:
        data = os.read(terminal, 65_536)
        stream.feed(data)
        return data

    os.environ |= {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    if code := os.waitstatus_to_exitcode(pty.spawn([str(COUPONS), "demo"], read)):
        sys.exit(code)
    return screen


def draw(screen: pyte.Screen) -> str:
    """Return the screen as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    last = max(number for number, line in enumerate(screen.display) if line.strip())
    for number in range(last + 1):
        cells = [screen.buffer[number][column] for column in range(COLUMNS)]
        line = Text()
        for (colour, bold), run in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            line.append("".join(cell.data for cell in run), Style(color=_colour(colour), bold=bold))
        line.rstrip()
        console.print(line, no_wrap=True, overflow="ignore")
    return WEB_FONTS.sub("", console.export_svg(title="coupons demo"))


def _colour(name: str) -> str | None:
    return f"#{name}" if re.fullmatch("[0-9a-f]{6}", name) else COLOURS.get(name, name)


if __name__ == "__main__":
    PICTURE.write_text(draw(record()), encoding="utf-8")
