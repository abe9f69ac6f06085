"""Reads spreadsheets as CSV text. The process `python -m coupons.sheets` reads the file, so its memory is limited."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from typing import IO
from zipfile import ZipFile

from coupons.sheets import END, FRAME, REFUSED, SHEET, UNAVAILABLE
from coupons.sources.compression import Part
from coupons.sources.limits import SourceLimits
from coupons.sources.source import SourceError, SourceUnavailable
from coupons.sources.threads import run_in_thread

PROGRAM = ("-P", "-m", "coupons.sheets")
"""-P: the current folder may contain files with the names of modules."""

_MILLION = 1_000_000
_DOCUMENTS = ("[Content_Types].xml", "META-INF/manifest.xml", "mimetype", "content.xml", "Index/Document.iwa")
"""Each zip that is a document has one of these files. The process says what kind of document it is."""


@dataclass(slots=True)
class Spreadsheet:
    """The sheet that is read. `notices` are complete after the last part."""

    kind: str
    sheet: str
    notices: list[str] = field(default_factory=list)


def is_document(archive: ZipFile) -> bool:
    """Whether the zip is a spreadsheet or another document, and not an archive of files."""
    names = set(archive.namelist())
    return any(name in names for name in _DOCUMENTS)


@asynccontextmanager
async def open_spreadsheet(
    file: FileIO, name: str, limits: SourceLimits, *, sheet: str | int | None, source_bytes: int
) -> AsyncIterator[tuple[Spreadsheet, AsyncIterator[Part]]]:
    """The text of a sheet. Leaving the context ends the process.

    Raises:
        SourceError: the file is no spreadsheet, encrypted, damaged or too large, or has no such sheet.
        SourceUnavailable: another program has ended the process, or the disk is full.
    """
    options = {"sheet": sheet, "max_bytes": limits.max_bytes, "max_ratio": limits.max_ratio}
    file.seek(0)
    process = await run_in_thread(partial(_start, file, json.dumps(options)))
    frames = _Frames(process, name)
    try:
        kind, _, content = await frames.read()
        if kind != SHEET:
            raise SourceError(f"{name} contains no table")
        chosen = json.loads(content)
        spreadsheet = Spreadsheet(chosen["kind"], chosen["sheet"])
        yield spreadsheet, _parts(frames, spreadsheet, source_bytes)
    finally:
        process.kill()
        await run_in_thread(process.communicate)


def _start(file: FileIO, options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the options are JSON and not interpreted by a shell
        [sys.executable, *PROGRAM, options],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a traceback may contain cells
        start_new_session=True,  # Ctrl-C ends the process that reads its frames
    )


class _Frames:
    """The frames that the process writes."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        assert process.stdout  # noqa: S101 - `_start` opens it
        self._process = process
        self._output: IO[bytes] = process.stdout
        self._name = name

    async def read(self) -> tuple[bytes, int, bytes]:
        """The kind of the next frame, how many millionths of the sheet were read, and the content."""
        kind, done, content = await run_in_thread(self._read, interrupt=self._process.kill)
        if kind == REFUSED:
            raise SourceError(f"{self._name} {content.decode()}")
        if kind == UNAVAILABLE:
            raise SourceUnavailable(f"{self._name} {content.decode()}")
        return kind, done, content

    def _read(self) -> tuple[bytes, int, bytes]:
        head = self._output.read(FRAME.size)
        if len(head) < FRAME.size:
            raise self._premature_end()
        kind, done, size = FRAME.unpack(head)
        content = self._output.read(size)
        if len(content) < size:
            raise self._premature_end()
        return kind, done, content

    def _premature_end(self) -> SourceError | SourceUnavailable:
        """A signal of the system, such as for a lack of memory, may not come again. Another end would come again."""
        if self._process.wait() in {-9, -15, -2, -1}:
            return SourceUnavailable(f"{self._name}: the process that reads the spreadsheet was ended")
        return SourceError(f"{self._name} is damaged or needs too much memory: save the sheet as CSV")


async def _parts(frames: _Frames, spreadsheet: Spreadsheet, source_bytes: int) -> AsyncIterator[Part]:
    while True:
        kind, done, content = await frames.read()
        if kind == END:
            spreadsheet.notices += json.loads(content)
            return
        yield Part(content, source_bytes * done // _MILLION)
