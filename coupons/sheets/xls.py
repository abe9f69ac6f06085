"""Reads the rows of .xls files (Excel 97 and 95: BIFF8 and BIFF5, [MS-XLS]).

python-calamine reads the texts, which have the most difficult encoding. It gives neither number formats nor errors, so
numbers, dates, booleans and errors come from the records of the sheet. An .xls file has at most 65,536 rows, so a sheet
is read as a whole.
"""

import struct
from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import BinaryIO

import olefile
from python_calamine import CalamineError, CalamineWorkbook, PasswordError

from coupons.files.converted import CONVERTED
from coupons.sheets.numbers import BUILT_IN_FORMATS, NumberText, number_text, plain_number
from coupons.sheets.workbook import DAMAGED, Reading, Rows, Sheet, SheetError, cell_text, not_a_table

_PROTECTED = SheetError("is protected by a password: save it without one")
_BIFF8 = 0x600


class _Kind(IntEnum):
    """The kinds of records that are read."""

    BOF, EOF, FILEPASS, BOUNDSHEET, DATEMODE, FORMAT, XF = 0x809, 0x0A, 0x2F, 0x85, 0x22, 0x41E, 0xE0
    ROW, NUMBER, RK, MULRK, FORMULA, BOOLERR, MERGED = 0x208, 0x203, 0x27E, 0xBD, 0x06, 0x205, 0xE5


_HIDDEN_ROW = 0x20
_ERRORS = {0: "#NULL!", 7: "#DIV/0!", 15: "#VALUE!", 23: "#REF!", 29: "#NAME?", 36: "#NUM!", 42: "#N/A"}
_OTHER_DOCUMENTS = {
    "WordDocument": "a Word document",
    "PowerPoint Document": "a PowerPoint file",
    "VisioDocument": "a Visio drawing",
}

Record = tuple[int, bytes]


class Xls:
    kind = "xls"

    def __init__(self, file: BinaryIO) -> None:
        self._stream = _read_stream(file)
        self._formats: list[NumberText | None] = []
        self._positions: dict[str, int] = {}
        self.sheets: list[Sheet] = []
        self._read_globals()
        file.seek(0)
        try:
            self._workbook = CalamineWorkbook.from_filelike(file)
        except PasswordError:
            raise _PROTECTED from None
        except CalamineError:
            raise DAMAGED from None

    def rows(self, sheet: Sheet, reading: Reading) -> Rows:
        cells = _Cells(_iter_records(self._stream, self._positions[sheet.place]), self._formats, reading)
        table = self._workbook.get_sheet_by_name(sheet.name)
        first_column = table.start[1] if table.start else 0
        for index, values in enumerate(table.iter_rows()):  # the rows from row 1, the columns from the first used one
            row = [""] * first_column + list(map(_text, values))
            cells.put_into(index, row)
            yield index + 1, row
            reading.done = (index + 1) / max(1, table.total_height)

    def _read_globals(self) -> None:
        codes = dict(BUILT_IN_FORMATS)
        formats: list[int] = []
        since_1904 = is_biff8 = False
        for kind, data in _iter_records(self._stream, 0):
            match kind:
                case _Kind.BOF:
                    is_biff8 = struct.unpack_from("<H", data)[0] == _BIFF8
                case _Kind.FILEPASS:
                    raise _PROTECTED
                case _Kind.DATEMODE:
                    since_1904 = data[:1] == b"\1"
                case _Kind.BOUNDSHEET:
                    self._add_sheet(data, is_biff8=is_biff8)
                case _Kind.FORMAT:
                    codes[struct.unpack_from("<H", data)[0]] = _string(data[2:], is_biff8=is_biff8, wide_count=is_biff8)
                case _Kind.XF:
                    formats.append(struct.unpack_from("<H", data, 2)[0])
        for number in formats:
            code = codes.get(number, "General")
            general = code.lower() in {"general", "@", ""}
            self._formats.append(None if general else number_text(code, since_1904=since_1904))

    def _add_sheet(self, data: bytes, *, is_biff8: bool) -> None:
        position, state, kind = struct.unpack_from("<IBB", data)
        if kind == 0:  # a worksheet, not a chart or a macro
            name = _string(data[6:], is_biff8=is_biff8, wide_count=False)
            self._positions[name] = position
            self.sheets.append(Sheet(name, bool(state & 3), name))


class _Cells:
    """The texts of all cells of a sheet that have a number, a boolean or an error, in the order of rows and columns."""

    def __init__(self, records: Iterator[Record], formats: list[NumberText | None], reading: Reading) -> None:
        self._formats = formats
        self._reading = reading
        self._keys, self._values, self._styles = array("I"), array("d"), array("H")
        self._texts: dict[int, str] = {}
        for kind, data in records:
            self._add(kind, data)
        self._order = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        self._next = 0

    def put_into(self, row_number: int, row: list[str]) -> None:
        """Put the texts of the row's cells into the row. Rows come in ascending order."""
        while self._next < len(self._order):
            index = self._order[self._next]
            of_row, column = divmod(self._keys[index], 256)
            if of_row > row_number:
                return
            if of_row == row_number:
                row.extend([""] * (column + 1 - len(row)))
                row[column] = self._text(index)
            self._next += 1

    def _text(self, index: int) -> str:
        if index in self._texts:
            return self._texts[index]
        style = self._styles[index]
        show = self._formats[style] if style < len(self._formats) else None
        return (show or plain_number)(self._values[index])

    def _add(self, kind: int, data: bytes) -> None:
        match kind:
            case _Kind.NUMBER:
                row, column, style, value = struct.unpack_from("<HHHd", data)
                self._put(row, column, style, value)
            case _Kind.RK:
                row, column, style, packed = struct.unpack_from("<HHHI", data)
                self._put(row, column, style, _unpack(packed))
            case _Kind.MULRK:
                row, column = struct.unpack_from("<HH", data)
                for place, (style, packed) in enumerate(struct.iter_unpack("<HI", data[4:-2]), column):
                    self._put(row, place, style, _unpack(packed))
            case _Kind.FORMULA:
                self._add_formula(data)
            case _Kind.BOOLERR:
                row, column, style, value, is_error = struct.unpack_from("<HHHBB", data)
                self._put(row, column, style, value, text=_boolean_or_error(value, is_error=bool(is_error)))
            case _Kind.ROW:
                flags = struct.unpack_from("<H", data, 12)[0]
                self._reading.hidden_rows += bool(flags & _HIDDEN_ROW)
            case _Kind.MERGED:
                self._reading.merged_ranges += struct.unpack_from("<H", data)[0]

    def _add_formula(self, data: bytes) -> None:
        """The cached value of a formula. Its texts come from python-calamine."""
        row, column, style, kind, value, special = struct.unpack_from("<HHHBxB3xH", data)
        if special != 0xFFFF:
            self._put(row, column, style, struct.unpack_from("<d", data, 6)[0])
        elif kind in {1, 2}:
            self._put(row, column, style, value, text=_boolean_or_error(value, is_error=kind == 2))

    def _put(self, row: int, column: int, style: int, value: float, *, text: str | None = None) -> None:
        if column > 255:
            raise DAMAGED
        if text is not None:
            self._texts[len(self._keys)] = text
        self._keys.append(row * 256 + column)
        self._values.append(value)
        self._styles.append(style)


def _read_stream(file: BinaryIO) -> bytes:
    """The stream of the workbook in the compound file."""
    with olefile.OleFileIO(file) as compound:
        if compound.exists("EncryptedPackage"):
            raise _PROTECTED
        for name, what in _OTHER_DOCUMENTS.items():
            if compound.exists(name):
                raise not_a_table(what)
        for name in ("Workbook", "Book"):
            if compound.exists(name):
                return bytes(compound.openstream(name).read())
    raise not_a_table("an old Office document")


def _iter_records(stream: bytes, position: int) -> Iterator[Record]:
    """The records of the substream at this position. A chart in a sheet has its own substream, which is skipped."""
    depth = 0
    while position + 4 <= len(stream):
        kind, size = struct.unpack_from("<HH", stream, position)
        data = stream[position + 4 : position + 4 + size]
        position += 4 + size
        depth += (kind == _Kind.BOF) - (kind == _Kind.EOF)
        if not depth:
            return
        if depth == 1:
            yield kind, data
    raise DAMAGED


def _unpack(packed: int) -> float:
    """The number of an RK record: 30 bits of an integer or of a double, perhaps in hundredths ([MS-XLS] 2.5.217)."""
    if packed & 2:
        number = float((packed >> 2) - (1 << 30 if packed & 0x8000_0000 else 0))
    else:
        number = struct.unpack("<d", struct.pack("<Q", (packed & 0xFFFF_FFFC) << 32))[0]
    return number / 100 if packed & 1 else number


def _boolean_or_error(value: int, *, is_error: bool) -> str:
    if is_error:
        return _ERRORS.get(value, "#N/A")
    return ("TRUE" if value else "FALSE") + CONVERTED


def _string(data: bytes, *, is_biff8: bool, wide_count: bool) -> str:
    """A short string. In BIFF5 its code page hardly matters: only names of sheets and formats have this form."""
    count = struct.unpack_from("<H" if wide_count else "<B", data)[0]
    rest = data[2 if wide_count else 1 :]
    if not is_biff8:
        return rest[:count].decode("cp1252", "replace")
    if rest[:1] and rest[0] & 1:
        return rest[1 : 1 + 2 * count].decode("utf-16-le", "replace")
    return rest[1 : 1 + count].decode("latin-1")


def _text(value: object) -> str:
    """A text cell. All other cells come from the records."""
    return cell_text(value) if isinstance(value, str) else ""
