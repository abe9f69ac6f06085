"""Reads the rows of .xlsx and .xlsm files (ECMA-376, SpreadsheetML) while their XML is parsed.

Memory does not grow with the sheet: the table of shared texts is in an unnamed file, and rows are yielded as they end.
"""

import mmap
import posixpath
import re
import tempfile
from array import array
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import unquote

from coupons.files.converted import CONVERTED
from coupons.sheets.numbers import BUILT_IN_FORMATS, MAX_DIGITS, NumberText, number_text, plain_number
from coupons.sheets.package import Package, create_parser, list_elements, local_name
from coupons.sheets.workbook import (
    DAMAGED,
    MAX_COLUMNS,
    MAX_ROWS,
    DiskError,
    Reading,
    Rows,
    Sheet,
    cell_text,
    not_a_table,
)

_OTHERS = {"word": "a Word document", "ppt": "a PowerPoint file", "visio": "a Visio drawing"}
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


class Xlsx:
    kind = "xlsx"

    def __init__(self, package: Package) -> None:
        self._package = package
        self._workbook = _find_workbook(package)
        elements = list_elements(package.read(self._workbook))
        self._since_1904 = any(
            name == "workbookPr" and attributes.get("date1904") in {"1", "true"} for name, attributes in elements
        )
        self._targets = _relations(package, self._workbook)
        self.sheets = [
            Sheet(attributes.get("name", ""), attributes.get("state", "visible") != "visible", place)
            for name, attributes in elements
            if name == "sheet" and (place := self._worksheet(attributes.get("id", "")))
        ]
        self._texts: _Texts | None = None
        self._formats: list[NumberText | None] | None = None

    def rows(self, sheet: Sheet, reading: Reading) -> Rows:
        if self._texts is None:
            shared = self._part("sharedStrings")
            self._texts = _Texts(_iter_shared_texts(self._package, shared) if shared else iter(()))
        if self._formats is None:
            self._formats = self._read_formats()
        sheet_reader = _SheetReader(self._texts, self._formats, reading, since_1904=self._since_1904)
        size = self._package.size(sheet.place) or 1
        read = 0
        for data in self._package.iter_member(sheet.place):
            read += len(data)
            yield from sheet_reader.feed(data)
            reading.done = read / size
        yield from sheet_reader.feed(b"", final=True)

    def _worksheet(self, relation: str) -> str:
        """The path of a worksheet, "" for a chart or a dialog."""
        target, kind = self._targets.get(relation, ("", ""))
        return target if kind.endswith("/worksheet") else ""

    def _part(self, kind: str) -> str | None:
        found = (target for target, of_kind in self._targets.values() if of_kind.endswith(f"/{kind}"))
        return next((target for target in found if target in self._package.names), None)

    def _read_formats(self) -> list[NumberText | None]:
        """The number format of each cell style. None for General."""
        styles = self._part("styles")
        if styles is None:
            return []
        codes: dict[int, str] = dict(BUILT_IN_FORMATS)
        formats: list[NumberText | None] = []
        is_cell_style = False
        for name, attributes in list_elements(self._package.read(styles)):
            match name:
                case "numFmt":
                    codes[_integer(attributes.get("numFmtId", ""))] = attributes.get("formatCode", "General")
                case "cellXfs":
                    is_cell_style = True
                case "xf" if is_cell_style:
                    code = codes.get(_integer(attributes.get("numFmtId", "0")), "General")
                    general = code.lower() in {"general", "@", ""}
                    formats.append(None if general else number_text(code, since_1904=self._since_1904))
                case "cellStyles" | "dxfs":
                    is_cell_style = False
        return formats


class _SheetReader:
    """Turns the XML of a sheet into rows. `feed` yields the rows that have ended."""

    def __init__(
        self, texts: "_Texts", formats: list[NumberText | None], reading: Reading, *, since_1904: bool
    ) -> None:
        self._texts = texts
        self._formats = formats
        self._reading = reading
        self._since_1904 = since_1904
        self._columns: dict[str, int] = {}
        self._ended: list[tuple[int, list[str]]] = []
        self._row = 0
        self._column = -1
        self._cells: list[str] = []
        self._kind = self._style = ""
        self._is_in_cell = self._is_in_text = self._is_formula = False
        self._parts: list[str] = []
        self._parser = create_parser()
        self._parser.StartElementHandler = self._start_document

    def feed(self, data: bytes, *, final: bool = False) -> list[tuple[int, list[str]]]:
        self._parser.Parse(data, final)
        ended, self._ended = self._ended, []
        return ended

    def _start_document(self, name: str, _: dict[str, str]) -> None:
        """Begin with the root element. It shows the prefix of all names: `worksheet` or `x:worksheet`."""
        if local_name(name) != "worksheet":
            raise DAMAGED
        prefix = name.removesuffix("worksheet")
        self._row_name, self._cell_name, self._value_name = (prefix + each for each in ("row", "c", "v"))
        self._text_name, self._formula_name = prefix + "t", prefix + "f"
        self._phonetic_name, self._merged_name = prefix + "rPh", prefix + "mergeCell"
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == self._cell_name:
            self._start_cell(attributes)
        elif name in (self._value_name, self._text_name):
            self._is_in_text = self._is_in_cell
        elif name == self._row_name:
            self._start_row(attributes)
        elif name == self._formula_name:
            self._is_formula = True
        elif name == self._phonetic_name:
            self._is_in_cell = False
        elif name == self._merged_name:
            self._reading.merged_ranges += 1

    def _start_cell(self, attributes: dict[str, str]) -> None:
        self._kind, self._style = attributes.get("t", ""), attributes.get("s", "")
        self._is_in_cell = True
        self._is_formula = False
        self._parts.clear()
        place = attributes.get("r")
        if place is None:
            self._column += 1
        else:
            letters = place.rstrip("0123456789")
            found = self._columns.get(letters)
            self._column = found if found is not None else self._column_of(letters)

    def _end(self, name: str) -> None:
        if name in (self._value_name, self._text_name):
            self._is_in_text = False
        elif name == self._cell_name:
            self._is_in_cell = False
            if not self._parts:
                self._reading.missing_results += self._is_formula
            else:
                if self._column != len(self._cells):
                    self._fill(self._column)
                self._cells.append(self._value_of(self._kind, self._style, "".join(self._parts)))
        elif name == self._row_name:
            self._ended.append((self._row, self._cells))
        elif name == self._phonetic_name:
            self._is_in_cell = True

    def _characters(self, data: str) -> None:
        if self._is_in_text:
            self._parts.append(data)

    def _start_row(self, attributes: dict[str, str]) -> None:
        place = attributes.get("r")
        row = self._row + 1 if place is None else int(place) if place.isdigit() else _integer(place)
        if not self._row < row <= MAX_ROWS:
            raise DAMAGED
        self._row, self._column, self._cells = row, -1, []
        if attributes.get("hidden") in {"1", "true"}:
            self._reading.hidden_rows += 1

    def _fill(self, column: int) -> None:
        """Add empty cells up to the column. Cells are in the order of their columns."""
        if column < len(self._cells):
            raise DAMAGED
        self._cells.extend([""] * (column - len(self._cells)))

    def _column_of(self, letters: str) -> int:
        """The index of a column: A is 0, AA is 26."""
        if not re.fullmatch("[A-Za-z]{1,3}", letters):
            raise DAMAGED
        number = 0
        for letter in letters.upper():
            number = number * 26 + ord(letter) - 64
        if number > MAX_COLUMNS:
            raise DAMAGED
        self._columns[letters] = number - 1
        return number - 1

    def _value_of(self, kind: str, style: str, value: str) -> str:
        match kind:
            case "s":
                return self._texts[int(value) if value.isdigit() else _integer(value)]
            case "" | "n":
                return self._number(style, value)
            case "inlineStr" | "str":
                return cell_text(_unescape(value))
            case "b":
                return ("TRUE" if value.strip() in {"1", "true"} else "FALSE") + CONVERTED
            case "d":
                return _iso_date(value.strip())
            case "e":
                return value.strip()
        raise DAMAGED

    def _number(self, style: str, value: str) -> str:
        show = self._formats[int(style)] if style and self._formats else None
        if show is None and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS and value[0] != "0":
            return value
        try:
            number = float(value)
        except ValueError:
            raise DAMAGED from None
        if number != number or number in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN differs from itself
            raise DAMAGED
        return (show or plain_number)(number)


class _Texts:
    """The table of shared texts, in an unnamed file. A million texts of 16 characters take 8 MB of memory."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._ends = array("Q", [0])
        end = 0
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as this object
            for text in texts:
                data = text.encode()
                end += len(data)
                self._file.write(data)
                self._ends.append(end)
            self._file.flush()
        except OSError as error:
            raise DiskError(f"cannot be unpacked in TMPDIR: {error.strerror}") from error
        self._data = mmap.mmap(self._file.fileno(), end, access=mmap.ACCESS_READ) if end else b""

    def __getitem__(self, index: int) -> str:
        try:
            return self._data[self._ends[index] : self._ends[index + 1]].decode()
        except IndexError:
            raise DAMAGED from None


def _iter_shared_texts(package: Package, name: str) -> Iterator[str]:
    reader = _SharedTextReader()
    for data in package.iter_member(name):
        yield from reader.feed(data)
    yield from reader.feed(b"", final=True)


class _SharedTextReader:
    """Reads the shared texts. An item may have several parts with different fonts; phonetic parts are left out."""

    def __init__(self) -> None:
        self._ended: list[str] = []
        self._parts: list[str] = []
        self._is_in_text = self._is_phonetic = False
        self._parser = create_parser()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        self._parser.Parse(data, final)
        ended, self._ended = self._ended, []
        return ended

    def _start(self, name: str, _: dict[str, str]) -> None:
        match local_name(name):
            case "t":
                self._is_in_text = not self._is_phonetic
            case "si":
                self._parts.clear()
            case "rPh":
                self._is_phonetic = True

    def _end(self, name: str) -> None:
        match local_name(name):
            case "t":
                self._is_in_text = False
            case "si":
                self._ended.append(cell_text(_unescape("".join(self._parts))))
            case "rPh":
                self._is_phonetic = False

    def _characters(self, data: str) -> None:
        if self._is_in_text:
            self._parts.append(data)


def _find_workbook(package: Package) -> str:
    """The path of the workbook. Most programs call it xl/workbook.xml, but the relations of the package decide."""
    if "_rels/.rels" in package.names:
        for target, kind in _relations(package, "").values():
            if kind.endswith("/officeDocument") and target in package.names and target.startswith("xl/"):
                return target
    if "xl/workbook.xml" in package.names:
        return "xl/workbook.xml"
    folders = {name.partition("/")[0] for name in package.names}
    raise not_a_table(next((what for folder, what in _OTHERS.items() if folder in folders), "an Office document"))


def _relations(package: Package, part: str) -> dict[str, tuple[str, str]]:
    """The path and the kind of each part to which a part refers, by the id of the reference."""
    folder, name = posixpath.split(part)
    path = posixpath.join(folder, "_rels", f"{name}.rels")
    if path not in package.names:
        raise DAMAGED
    return {
        attributes.get("Id", ""): (_resolve(folder, attributes.get("Target", "")), attributes.get("Type", ""))
        for name, attributes in list_elements(package.read(path))
        if name == "Relationship" and attributes.get("TargetMode") != "External"
    }


def _resolve(folder: str, target: str) -> str:
    target = unquote(target)
    return posixpath.normpath(target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target))


def _unescape(text: str) -> str:
    """The text with characters that XML cannot contain: `_x000D_` is a carriage return (ECMA-376 part 1, 22.9.2.19)."""
    if "_x" not in text:
        return text
    units = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # joins halves of characters


def _iso_date(text: str) -> str:
    """The date of a cell in ISO 8601, as some programs write it, in the form of `number_text`."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return text + CONVERTED
    return (f"{date:%Y-%m-%d %H:%M:%S}" if "T" in text else text) + CONVERTED


def _integer(text: str) -> int:
    if not (text.isascii() and text.strip().isdigit() and len(text) < MAX_DIGITS):
        raise DAMAGED
    return int(text)
