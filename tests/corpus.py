"""Difficult files from shops, spreadsheets and accidents, with the expected result of each."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from coupons.files.format import FileFormat
from coupons.files.rejections import MAX_CODE_CHARS, Reason

Codes = list[tuple[int, str]]
Rejections = list[tuple[int, Reason]]


@dataclass(frozen=True)
class Case:
    """A file and its expected result.

    If `data` is read as `format`, the result is the codes and the rejected lines, by line number, or an error that
    contains each text of `error`.
    """

    name: str
    data: bytes
    accepted: Codes = field(default_factory=list)
    rejected: Rejections = field(default_factory=list)
    blank: int = 0
    error: tuple[str, ...] = ()
    format: FileFormat = field(default_factory=FileFormat)


def one_line(characters: int) -> Iterator[bytes]:
    """Yield the given number of characters without a line end, in chunks of 1 MiB."""
    piece = b"x" * (1 << 20)
    for _ in range(characters >> 20):
        yield piece


def stray_byte() -> bytes:
    """Return UTF-8 text with umlauts and one cp1252 byte in line 15,001."""
    lines = [f"GRÜN{number}".encode() for number in range(1, 20_000)]
    lines[15_000] = "GRÜN".encode("cp1252")
    return b"\n".join(lines)


def png() -> bytes:
    """Return a PNG image of one grey pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def office() -> bytes:
    """Return a file with the parts by which an Excel workbook is recognized."""
    workbook = io.BytesIO()
    with zipfile.ZipFile(workbook, "w") as members:
        members.writestr("[Content_Types].xml", "<Types/>")
        members.writestr("xl/workbook.xml", "<workbook/>")
    return workbook.getvalue()


TXT = FileFormat(kind="txt")
CSV = FileFormat(kind="csv")
CP1252 = FileFormat(encoding="cp1252")
TABLE = "Name;Code;Betrag\r\nJürgen;GRÜN-1;5,00 €\r\nZoë;GRÜN-2;7,50 €\r\n"
OF_TABLE = [(2, "GRÜN-1"), (3, "GRÜN-2")]
DAMAGED = [
    *("1.2E+11", "1,2E+11", "1,23457E+11", "4E+15", "#NAME?", "#REF!", "#BEZUG!", "#N/A", "#WERT!", "########"),
    *("1-Mar", "01-Mar", "Mar-01", "01. Mrz", "01.Mai", "Mai 01", "31. Dez", "1-Sept"),
]
UNDAMAGED = [
    "1.2E11",
    "1E5",
    "MAR1",
    "MAR-01",
    "1-3",
    "1-MAR",
    "1-mar",
    "01.03.2026",
    "41-Mar",
    "May-2026",
    "007",
]
INVISIBLE = {
    "nul": "\x00",
    "right to left override": "\u202e",
    "right to left mark": "\u200f",
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "byte order mark inside": "\ufeff",
    "soft hyphen": "\u00ad",
    "tab": "\t",
    "escape": "\x1b",
    "next line": "\u0085",
    "line separator": "\u2028",
    "form feed": "\x0c",
    "private use": "\ue000",
    "replacement": "\ufffd",
}

CASES = [
    # --- spreadsheets ---
    Case("excel csv in cp1252", TABLE.encode("cp1252"), OF_TABLE, format=CP1252),
    Case(
        "excel csv in cp1252, encoding not specified", TABLE.encode("cp1252"),
        error=("line 2: the bytes fc are not utf-8", "likely cp1252"),
    ),
    Case("excel csv in utf-8", TABLE.encode("utf-8-sig"), OF_TABLE),
    Case("excel unicode text", TABLE.replace(";", "\t").encode("utf-16"), OF_TABLE),
    Case("the same, big endian", b"\xfe\xff" + TABLE.replace(";", "\t").encode("utf-16-be"), OF_TABLE),
    Case("the same without its mark", TABLE.replace("ü", "u").replace(";", "\t").encode("utf-16-le"),
         [(2, "GRÜN-1"), (3, "GRÜN-2")]),
    Case("the same without its mark, encoding specified", TABLE.replace(";", "\t").encode("utf-16-le"), OF_TABLE,
         format=FileFormat(encoding="utf-16-le")),
    Case("sep line", ("sep=;\r\n" + TABLE).encode(), [(3, "GRÜN-1"), (4, "GRÜN-2")]),
    Case("sep line in quotes, with tabs", b'"sep=\t"\r\ncode\tx\r\nA1\t\r\n', [(3, "A1")]),
    Case("empty columns of a spreadsheet", b"code;eur;;\nA1;5;;\nB2;5;;\n;;;\n", [(2, "A1"), (3, "B2")], blank=1),
    Case("damage", "\n".join([*DAMAGED, "A1"]).encode(), [(len(DAMAGED) + 1, "A1")],
         [(line, Reason.EXCEL) for line in range(1, len(DAMAGED) + 1)], format=TXT),
    Case("a comment among codes", b"A1\n#1\n", [(1, "A1")], [(2, Reason.COMMENT)]),
    Case("no damage", "\n".join(UNDAMAGED).encode(), list(enumerate(UNDAMAGED, 1))),
    Case("formulas", b"code\n=A1\n'=B2\n-C3\n+D4\n@E5\n",
         [(2, "=A1"), (3, "=B2"), (4, "-C3"), (5, "+D4"), (6, "@E5")]),
    # --- quotes and rows ---
    Case("quotes over lines", b'name;code\n"Ada\nLovelace";A1\n"B\r\n\r\nC";"B2"\n"";"C""3"\n',
         [(2, "A1"), (4, "B2"), (7, 'C"3')]),
    Case("a line end in a code", b'code;x\n"A\n1";\nB2;\n', [(4, "B2")], [(2, Reason.CONTROL)]),
    Case("an open quote", b'code;x\nA1;"\nB2;\n', [(3, "B2")], [(2, Reason.QUOTES)]),
    Case("an open quote in a long file", b'code;x\nA1;"x\n' + (b"B2;" + b"y" * 400 + b"\n") * 200,
         [(line, "B2") for line in range(3, 203)], [(2, Reason.QUOTES)]),
    Case("text after a quote", b'code;x\nA1;\n"B2"C;\n', [(2, "A1")], [(3, Reason.QUOTES)]),
    Case("ragged rows", b"code;x\nA1;\nB2\nC3;1;2\nD4;1;\n", [(2, "A1"), (3, "B2"), (5, "D4")],
         [(4, Reason.COLUMNS)]),
    Case("two code columns", b"code;name;Coupon\nA1;x;B1\n", error=("line 1: ambiguous column name (1, 3)",)),
    Case("the same header twice", b"code;code\nA1;B1\n", error=("line 1: ambiguous column name (1, 2)",)),
    Case("the same header twice, by number", b"code;code\nA1;B1\n", [(2, "B1")], format=FileFormat(column=2)),
    Case("header only", b"code;x\n"),
    # --- lines ---
    Case("lines that end in CR", b"A1\rB2\r\rC3\r", [(1, "A1"), (2, "B2"), (4, "C3")], blank=1),
    Case("lines that end in each way", b"A1\nB2\r\nC3\rD4\n\rE5",
         [(1, "A1"), (2, "B2"), (3, "C3"), (4, "D4"), (6, "E5")], blank=1),
    Case("no end of the last line", b"A1\nB2", [(1, "A1"), (2, "B2")]),
    Case("blank lines around", b"\n\t\nA1\n \n\n", [(3, "A1")], blank=4),
    Case("empty", b"", error=("is empty",)),
    Case("blank lines only", b"\n\r\n \t\n\r", error=("is empty",)),
    *(Case(f"only a mark, {encoding}", "\ufeff".encode(encoding), error=("is empty",))
      for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")),
    # --- characters ---
    Case("200 and 201 characters", f"{'X' * 200}\n{'X' * 201}\n{'Ä' * 200}\n".encode(),
         [(1, "X" * MAX_CODE_CHARS), (3, "Ä" * MAX_CODE_CHARS)], [(2, Reason.TOO_LONG)]),
    *(Case(name, f"A1\nB{character}2\nC3\n".encode(), [(1, "A1"), (3, "C3")], [(2, Reason.CONTROL)], format=TXT)
      for name, character in INVISIBLE.items()),
    Case("hebrew", "גשם1\n".encode(), [(1, "גשם1")]),
    Case("odd spaces", "A 1\nB  2\nC\u00a03\n\u00a0D4\u2003\n".encode(), [(1, "A 1"), (4, "D4")],
         [(2, Reason.SPACES), (3, Reason.SPACES)]),
    Case("half a pair in utf-16", "\ufeffA1\n".encode("utf-16-le") + b"\x3d\xd8" + "\n".encode("utf-16-le"),
         error=("line 2: the bytes 3d d8 are not utf-16-le", "Fix that line")),
    Case("the other half", "\ufeffA1\n".encode("utf-16-le") + b"\x00\xdc" + "\n".encode("utf-16-le"),
         error=("line 2: the bytes 00 dc are not utf-16-le",)),
    Case("surrogates in utf-8", b"A1\nB\xed\xa0\xbd\xed\xb8\x80\n", error=("line 2: the bytes ed are not utf-8",)),
    Case("a stray cp1252 byte", stray_byte(),
         error=("line 15001: the bytes dc are not utf-8, although earlier lines are. Fix that line", "likely cp1252")),
    Case("cut off inside a character", "A1\nGRÜ".encode()[:-1], error=("line 2: the bytes c3 are not utf-8",)),
    Case("utf-8 read as cp1252", "GRÜN\n".encode(), format=CP1252,
         error=("line 1: these bytes are valid UTF-8; cp1252 would read 'GRÃœ…' instead of 'GRÜ…'",)),
    Case("utf-8 read as cp1252 by force", "GRÜN\n".encode(), [(1, "GRÃœN")],
         format=FileFormat(encoding="cp1252", force_encoding=True)),
    Case("urls and placeholders", b"https://a.example/1\nwww.a.example\n{{ code }}\n%%code%%\nA1\n", [(5, "A1")],
         [(1, Reason.URL), (2, Reason.URL), (3, Reason.PLACEHOLDER), (4, Reason.PLACEHOLDER)], format=TXT),
    Case("a line of 64 Ki characters", b"A1\n" + b"x" * 65_536 + b"\nB2\n", [(1, "A1"), (3, "B2")],
         [(2, Reason.TOO_LONG)]),
    Case("a longer line", b"A1\n" + b"x" * 65_537 + b"\nB2\n", error=("line 2: exceeds the limit of 65536",)),
    # --- not text ---
    Case("png", png(), error=("looks like a picture, not a list",)),
    Case("docx in a zip", office(), error=("looks like a file compressed twice",)),
    Case("pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", error=("looks like a PDF file", "as CSV")),
    Case("gzip in gzip", zlib.compress(b"A1\n", wbits=31), error=("looks like a file compressed twice",)),
    Case("zeros", bytes(100_000), error=("line 1: ",)),
]  # fmt: skip


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))
