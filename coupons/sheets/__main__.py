"""Writes a sheet of the spreadsheet on stdin to stdout, as CSV text in frames. `coupons.sources.spreadsheet` starts it.

It is a process of its own because it reads files of strangers with a parser and a library: its memory is limited, a
crash ends only this process, and the event loop of the worker never waits for it.
"""

import csv
import io
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from typing import BinaryIO
from xml.parsers.expat import ExpatError
from zipfile import BadZipFile

from coupons.sheets import END, FRAME, REFUSED, SEPARATOR, SHEET, TEXT, UNAVAILABLE
from coupons.sheets.likeness import HEAD_ROWS, Likeness, likeness
from coupons.sheets.ods import MIME_TYPE, Ods
from coupons.sheets.package import Package
from coupons.sheets.workbook import DAMAGED, DiskError, Limits, Reading, Rows, Sheet, SheetError, Workbook, not_a_table
from coupons.sheets.xlsx import Xlsx

MAX_MEMORY = 512 * 1_048_576
"""Only an .xls file is held in memory as a whole. 65,536 rows with 10 columns, half of them texts, take 165 MiB."""

MAX_NOTICE_CHARS = 300
_TEXT_CHARS = 262_144
_SHOWN_SHEETS = 10
_OTHER_PACKAGES = {
    b"application/epub+zip": "an e-book (EPUB)",
    b"application/vnd.oasis.opendocument.text": "a text document (OpenDocument)",
    b"application/vnd.oasis.opendocument.presentation": "a presentation (OpenDocument)",
    b"application/vnd.oasis.opendocument.graphics": "a drawing (OpenDocument)",
}
_DAMAGE = (
    ArithmeticError, BadZipFile, EOFError, ExpatError, LookupError, NotImplementedError, OSError, ValueError,
    struct.error, zlib.error,
)  # fmt: skip


def main() -> None:
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource  # noqa: PLC0415 - Windows does not have this module

        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    options = json.loads(sys.argv[1])
    limits = Limits(options["max_bytes"], options["max_ratio"])
    with suppress(BrokenPipeError), open(0, "rb", closefd=False) as file:
        for kind, done, content in iter_frames(file, options["sheet"], limits):
            sys.stdout.buffer.write(FRAME.pack(kind, int(done * 1_000_000), len(content)) + content)
            sys.stdout.buffer.flush()


def iter_frames(file: BinaryIO, chosen: str | int | None, limits: Limits) -> Iterator[tuple[bytes, float, bytes]]:
    """The frames of a sheet: its name, its text and its end, or at some point the reason why it cannot be read."""
    try:
        yield from _iter_frames(file, chosen, limits)
    except SheetError as error:
        yield REFUSED, 0, str(error).encode()
    except DiskError as error:
        yield UNAVAILABLE, 0, str(error).encode()
    except MemoryError:
        yield REFUSED, 0, b"needs too much memory: save the sheet as .xlsx or CSV"
    except BrokenPipeError:
        raise
    except _DAMAGE:
        yield REFUSED, 0, str(DAMAGED).encode()
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # python-calamine, for some damaged files
            raise
        yield REFUSED, 0, str(DAMAGED).encode()


def _iter_frames(file: BinaryIO, chosen: str | int | None, limits: Limits) -> Iterator[tuple[bytes, float, bytes]]:
    workbook = open_workbook(file, limits)
    sheet, rows, reading = _open_sheet(workbook, chosen)
    yield SHEET, 0, json.dumps({"kind": workbook.kind, "sheet": sheet.name}).encode()
    for text in iter_csv(rows):
        yield TEXT, min(1.0, reading.done), text
    notices = [notice[:MAX_NOTICE_CHARS] for notice in _notices(workbook, sheet, reading, chosen)]
    yield END, 1, json.dumps(notices).encode()


def open_workbook(file: BinaryIO, limits: Limits) -> Workbook:
    if file.read(2) != b"PK":
        from coupons.sheets.xls import Xls  # noqa: PLC0415 - its libraries take 30 ms, which only .xls files need

        return Xls(file)
    package = Package(file, limits)
    if "mimetype" in package.names or "content.xml" in package.names:
        mime_type = package.read("mimetype") if "mimetype" in package.names else MIME_TYPE
        if mime_type.startswith(MIME_TYPE):
            return Ods(package)
        raise not_a_table(_OTHER_PACKAGES.get(mime_type.strip(), "an OpenDocument file that is not a spreadsheet"))
    if "xl/workbook.bin" in package.names:
        raise SheetError("is a binary Excel file (.xlsb): save it as .xlsx")
    if any(name.endswith(".iwa") for name in package.names):
        raise not_a_table("an Apple iWork document")
    return Xlsx(package)


def iter_csv(rows: Rows) -> Iterator[bytes]:
    """The rows as CSV text: line n is row n of the sheet. Empty cells at the end of a row are left out."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=SEPARATOR, lineterminator="\n")
    before = 0
    for number, cells in rows:
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        if number > before + 1:
            buffer.write("\n" * (number - before - 1))
        writer.writerow(cells)
        before = number
        if buffer.tell() >= _TEXT_CHARS:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    if buffer.tell():
        yield buffer.getvalue().encode()


def _open_sheet(workbook: Workbook, chosen: str | int | None) -> tuple[Sheet, Rows, Reading]:
    """The chosen sheet, else the one with the list; a hidden sheet only if all others are empty."""
    if not workbook.sheets:
        raise not_a_table("a workbook without a table")
    if chosen is not None:
        sheet = _find_sheet(workbook.sheets, chosen)
    else:
        visible = [sheet for sheet in workbook.sheets if not sheet.is_hidden]
        hidden = [sheet for sheet in workbook.sheets if sheet.is_hidden]
        sheet = _likely_sheet(workbook, visible) or _likely_sheet(workbook, hidden) or workbook.sheets[0]
    reading = Reading()
    return sheet, workbook.rows(sheet, reading), reading


def _likely_sheet(workbook: Workbook, sheets: list[Sheet]) -> Sheet | None:
    """The first sheet with text if it has a list, else the only sheet that looks more like one. None without text.

    Raises SheetError if several sheets have text and none of them is the likely one.
    """
    found: list[tuple[Likeness, Sheet]] = []
    for sheet in sheets:
        if head := _read_head(workbook, sheet):
            found.append((likeness(head), sheet))
            if found[0][0] is Likeness.KNOWN_HEADER:
                break
    if len(found) < 2:
        return found[0][1] if found else None
    best, first = max(found, key=itemgetter(0))
    if found[0][0] < best and sum(like == best for like, _ in found) == 1:
        return first
    if found[0][0] < best or best is Likeness.TEXT:
        raise SheetError(
            f"has {len(found)} sheets with text, of which none is clearly the list: choose one with --sheet"
            f" ({_list_sheets(workbook.sheets)})"
        )
    return found[0][1]


def _read_head(workbook: Workbook, sheet: Sheet) -> list[list[str]]:
    """The first rows with text. They are read again later: the sheets of an .xls file are large in memory."""
    rows = ([cell.strip() for cell in cells] for _, cells in workbook.rows(sheet, Reading()))
    return list(islice(filter(any, rows), HEAD_ROWS))


def _find_sheet(sheets: list[Sheet], chosen: str | int) -> Sheet:
    names = [sheet.name.strip().lower() for sheet in sheets]
    if isinstance(chosen, str) and (name := chosen.strip().lower()) in names:
        return sheets[names.index(name)]
    number = int(chosen) if isinstance(chosen, int) or (chosen.isascii() and chosen.isdigit()) else 0
    if not 1 <= number <= len(sheets):
        raise SheetError(f"has no sheet {chosen!r}: the sheets are {_list_sheets(sheets)} (--sheet)")
    return sheets[number - 1]


def _list_sheets(sheets: list[Sheet]) -> str:
    shown = ", ".join(f"{number} {sheet.name[:31]!r}" for number, sheet in enumerate(sheets[:_SHOWN_SHEETS], 1))
    return shown + (", …" if len(sheets) > _SHOWN_SHEETS else "")


def _notices(workbook: Workbook, sheet: Sheet, reading: Reading, chosen: str | int | None) -> Iterator[str]:
    if len(workbook.sheets) > 1 and chosen is None:
        yield f"only sheet {sheet.name!r} was read; the sheets are {_list_sheets(workbook.sheets)} (--sheet)"
    if sheet.is_hidden:
        yield f"sheet {sheet.name!r} is hidden"
    if reading.hidden_rows:
        yield _counted(reading.hidden_rows, "hidden row was read as well", "hidden rows were read as well")
    if reading.missing_results:
        yield _counted(
            reading.missing_results,
            "formula without a stored result is empty: save the file in a spreadsheet program",
            "formulas without a stored result are empty: save the file in a spreadsheet program",
        )
    if reading.merged_ranges:
        yield _counted(
            reading.merged_ranges,
            "range of merged cells: only its first cell has a text",
            "ranges of merged cells: only their first cells have a text",
        )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


if __name__ == "__main__":
    main()
