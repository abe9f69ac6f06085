"""Reads the rows of .ods files (OpenDocument, OASIS) while their XML is parsed. Memory does not grow with the sheet.

A cell has its value and the text that it shows, in the language of its author. The text decides which digits are shown,
the value what they mean: `1.234,50` and `1,234.50` are both 1234.50.
"""

import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal

from coupons.files.converted import CONVERTED
from coupons.sheets.numbers import MAX_DIGITS, damaged, plain_number
from coupons.sheets.package import Package, create_parser, list_elements
from coupons.sheets.workbook import DAMAGED, MAX_COLUMNS, MAX_ROWS, Reading, Rows, Sheet, SheetError, cell_text

MIME_TYPE = b"application/vnd.oasis.opendocument.spreadsheet"
_CONTENT = "content.xml"
_MANIFEST = "META-INF/manifest.xml"

_TABLE, _ROW, _CELL, _COVERED = "table:table", "table:table-row", "table:table-cell", "table:covered-table-cell"
_PARAGRAPH = "text:p"
_IGNORED = {  # elements with texts that the cell itself does not show
    "office:annotation", "draw:frame", "draw:custom-shape", "draw:rect", "draw:line", "draw:g", "draw:control",
    "table:shapes", "text:ruby-text", "text:note", "table:tracked-changes", "office:forms", "svg:title", "svg:desc",
}  # fmt: skip
_NUMBER = re.compile(r"([^\d]*?)(-?)((?:\d[\d.,'\u2019\u066c\s\u00a0\u202f]*)?\d)(\D*)", re.DOTALL).fullmatch
_GROUPS = re.compile(r"[.,'\u2019\u066c\s\u00a0\u202f]")
_EXPONENT = re.compile(r"\d[Ee][+-]?\d").search
_TIME = re.compile(r"(-?)PT?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:[.,]\d+)?S)?").fullmatch


class Ods:
    kind = "ods"

    def __init__(self, package: Package) -> None:
        if "encrypted-package" in package.names or _is_encrypted(package):
            raise SheetError("is protected by a password: save it without one")
        self._package = package
        if _CONTENT not in package.names:
            raise DAMAGED
        self.sheets = list(self._list_sheets())

    def _list_sheets(self) -> Iterator[Sheet]:
        """The sheets. Their names are spread over the whole content, so it is parsed once without its cells."""
        found: list[tuple[str, str]] = []
        hidden: set[str] = set()
        style = ""
        depth = 0

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal style, depth
            if name == _TABLE:
                if not depth:
                    found.append((attributes.get("table:name", ""), attributes.get("table:style-name", "")))
                depth += 1
            elif name == "style:style":
                style = attributes.get("style:name", "")
            elif name == "style:table-properties" and attributes.get("table:display") == "false":
                hidden.add(style)

        def end(name: str) -> None:
            nonlocal depth
            depth -= name == _TABLE

        parser = create_parser()
        parser.StartElementHandler, parser.EndElementHandler = start, end
        for data in self._package.iter_member(_CONTENT):
            parser.Parse(data, False)
        parser.Parse(b"", True)
        for index, (name, style) in enumerate(found):
            yield Sheet(name, style in hidden, str(index))

    def rows(self, sheet: Sheet, reading: Reading) -> Rows:
        reader = _SheetReader(int(sheet.place), reading)
        size = self._package.size(_CONTENT) or 1
        read = 0
        for data in self._package.iter_member(_CONTENT):
            read += len(data)
            yield from reader.feed(data)
            reading.done = read / size
            if reader.has_ended:
                return


class _SheetReader:
    """Turns the XML of the content into the rows of one sheet. `feed` yields the rows that have ended."""

    def __init__(self, index: int, reading: Reading) -> None:
        self.has_ended = False
        self._tables_before = index
        self._reading = reading
        self._depth = self._ignored = 0
        self._is_inside = False
        self._row = 0
        self._row_repeat = self._cell_repeat = 1
        self._cells: list[str] = []
        self._pending = 0  # empty cells that count only if a cell with text follows
        self._attributes: dict[str, str] = {}
        self._paragraphs: list[list[str]] = []
        self._in_paragraph = 0
        self._ended: list[tuple[int, list[str], int]] = []
        self._parser = create_parser()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters

    def feed(self, data: bytes) -> Rows:
        self._parser.Parse(data, False)
        ended, self._ended = self._ended, []
        for first, cells, repeat in ended:
            for number in range(first, first + repeat):
                yield number, cells

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._ignored or name in _IGNORED:
            self._ignored += 1
        elif name == _TABLE:
            self._start_table()
        elif not self._is_inside or self._depth > 1:
            return
        elif name in (_CELL, _COVERED):
            self._attributes, self._paragraphs, self._in_paragraph = attributes, [], 0
            self._reading.merged_ranges += "table:number-columns-spanned" in attributes
        elif name == _ROW:
            self._row_repeat = _repeat(attributes, "table:number-rows-repeated")
            self._cells, self._pending = [], 0
            if attributes.get("table:visibility", "visible") != "visible":
                self._reading.hidden_rows += self._row_repeat
        elif name == _PARAGRAPH:
            self._paragraphs.append([])
            self._in_paragraph += 1
        elif self._in_paragraph:
            self._start_in_paragraph(name, attributes)

    def _start_in_paragraph(self, name: str, attributes: dict[str, str]) -> None:
        match name:
            case "text:s":
                self._paragraphs[-1].append("\0" * min(_repeat(attributes, "text:c"), MAX_COLUMNS))
            case "text:tab":
                self._paragraphs[-1].append("\1")
            case "text:line-break":
                self._paragraphs[-1].append("\2")

    def _start_table(self) -> None:
        if not self._depth:
            self._is_inside = self._tables_before == 0
            self._tables_before -= 1
        self._depth += 1

    def _end(self, name: str) -> None:
        if self._ignored:
            self._ignored -= 1
        elif name == _TABLE:
            self._depth -= 1
            self.has_ended = self.has_ended or (self._is_inside and not self._depth)
            self._is_inside = self._is_inside and bool(self._depth)
        elif not self._is_inside or self._depth > 1:
            return
        elif name in (_CELL, _COVERED):
            self._end_cell(_repeat(self._attributes, "table:number-columns-repeated"))
        elif name == _ROW:
            self._end_row()
        elif name == _PARAGRAPH:
            self._in_paragraph -= 1

    def _characters(self, data: str) -> None:
        if self._in_paragraph and not self._ignored:
            self._paragraphs[-1].append(data)

    def _end_cell(self, repeat: int) -> None:
        text = _value(self._attributes, [_collapse("".join(parts)) for parts in self._paragraphs])
        if not text:
            self._pending += repeat
            return
        if len(self._cells) + self._pending + repeat > MAX_COLUMNS:
            raise DAMAGED
        self._cells += [""] * self._pending + [text] * repeat
        self._pending = 0

    def _end_row(self) -> None:
        if self._cells:
            if self._row + self._row_repeat > MAX_ROWS:
                raise DAMAGED
            self._ended.append((self._row + 1, self._cells, self._row_repeat))
        self._row += self._row_repeat


def _collapse(text: str) -> str:
    """The text of a paragraph. Runs of white space are one space (ODF 1.3 part 3, 6.1.2); elements mark the others."""
    text = re.sub(r"[ \t\r\n]+", " ", text)
    return text.replace("\0", " ").replace("\1", "\t").replace("\2", "\n")


def _value(attributes: dict[str, str], paragraphs: list[str]) -> str:
    """The text of a cell by its value and by the text that it shows."""
    shown = "\n".join(paragraphs)
    kind = attributes.get("office:value-type", "")
    match kind if attributes.get("calcext:value-type") != "error" else "":
        case "float" | "percentage" | "currency":
            return _number(attributes.get("office:value", ""), shown, is_percentage=kind == "percentage")
        case "date":
            return _date(attributes.get("office:date-value", ""), shown) + CONVERTED
        case "time":
            return _time(attributes.get("office:time-value", ""), shown) + CONVERTED
        case "boolean":
            return str(attributes.get("office:boolean-value") == "true").upper() + CONVERTED
    return cell_text(shown if paragraphs else attributes.get("office:string-value", ""))  # a text, or no type


def _number(value: str, shown: str, *, is_percentage: bool) -> str:
    """The number with the digits that are shown. `numbers` describes the form."""
    try:
        number = float(value)
    except ValueError:
        raise DAMAGED from None
    if not abs(number) < 10**MAX_DIGITS:
        return damaged(number)
    shown = shown.strip()
    if _EXPONENT(shown):
        return plain_number(number) + CONVERTED
    return _as_shown(number * (100 if is_percentage else 1), shown) or (
        f"{plain_number(float(f'{number * 100:.{MAX_DIGITS}g}'))}%" if is_percentage else plain_number(number)
    )


def _as_shown(number: float, shown: str) -> str | None:
    """The shown text, with a point before the decimals and without separators. None if its digits are another number.

    The number of decimals is the one for which the shown digits are the rounded number.
    """
    match = _NUMBER(shown)
    if not match:
        return shown if _digits(shown) and _is_rounded(number, _digits(shown), 0) else None
    before, sign, core, behind = match.groups()
    digits = _digits(core)
    if "\n" in shown or len(digits) > MAX_DIGITS:
        return None
    decimals = next((count for count in range(len(digits)) if _is_rounded(number, digits, count)), None)
    if decimals is None:
        return None
    if decimals == 0 and not _is_grouped(core):
        return f"{before}{sign}{core}{behind}".strip()
    whole = digits[: len(digits) - decimals]
    point = "." if decimals else ""
    return f"{before}{sign}{whole}{point}{digits[len(digits) - decimals :]}{behind}".strip()


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _is_rounded(number: float, digits: str, decimals: int) -> bool:
    unit = Decimal(1).scaleb(-decimals)
    exact = abs(Decimal(f"{number:.{MAX_DIGITS}g}"))
    return exact.quantize(unit, ROUND_HALF_UP) == Decimal(int(digits)).scaleb(-decimals)


def _is_grouped(core: str) -> bool:
    """Whether the number has separators of thousands: then each group but the first has three digits."""
    first, *groups = _GROUPS.split(core)
    return bool(groups) and len(first) <= 3 and all(len(group) == 3 for group in groups)


def _date(value: str, shown: str) -> str:
    date, _, time = value.partition("T")
    if not re.fullmatch(r"-?\d{4,}-\d\d-\d\d", date):
        raise DAMAGED
    return f"{date} {(time or '00:00:00')[:8]}" if ":" in shown else date


def _time(value: str, shown: str) -> str:
    match = _TIME(value)
    if not match:
        return cell_text(shown)
    sign, hours, minutes, seconds = match.groups()
    return f"{sign}{int(hours or 0):02}:{int(minutes or 0):02}:{int(seconds or 0):02}"


def _repeat(attributes: dict[str, str], name: str) -> int:
    text = attributes.get(name, "1")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DAMAGED
    return max(1, int(text))


def _is_encrypted(package: Package) -> bool:
    return _MANIFEST in package.names and any(
        name == "encryption-data" for name, _ in list_elements(package.read(_MANIFEST))
    )
