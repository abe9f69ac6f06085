"""The zip archive of a spreadsheet, and the XML files in it."""

from collections.abc import Iterator
from typing import Any, BinaryIO
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from coupons.sheets.workbook import DAMAGED, Limits, SheetError

READ_BYTES = 65_536
_PIECE_BYTES = 1_048_576
_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4


class Package:
    """Reads members of a zip within the limits for decompressed data. `names` are those of all members."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._archive = ZipFile(file)
        self._limits = limits
        self.names = set(self._archive.namelist())

    def read(self, name: str) -> bytes:
        """A small member as a whole."""
        info = self._info(name)
        if info.file_size > _PIECE_BYTES * 8:
            raise DAMAGED
        return self._archive.read(info)

    def size(self, name: str) -> int:
        return self._info(name).file_size

    def iter_member(self, name: str) -> Iterator[bytes]:
        with self._archive.open(self._info(name)) as member:
            while data := member.read(READ_BYTES):
                yield data

    def _info(self, name: str) -> ZipInfo:
        """The directory's entry. `zipfile` never reads more than the size in it."""
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise DAMAGED from None
        if info.flag_bits & _ENCRYPTED:
            raise SheetError("is protected by a password: save it without one")
        if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
            raise SheetError("uses an unsupported compression method: save it again")
        if info.file_size > self._limits.max_bytes:
            raise SheetError(
                f"exceeds the limit of {self._limits.max_bytes} bytes when decompressed (COUPONS_IMPORT_MAX_BYTES)"
            )
        if info.file_size > max(_PIECE_BYTES, info.compress_size * self._limits.max_ratio):
            raise SheetError(
                f"decompresses to more than {self._limits.max_ratio} times its size; if this is correct, save it as CSV"
                " (COUPONS_IMPORT_MAX_RATIO)"
            )
        return info


def create_parser() -> Any:
    """A parser of XML without a document type: entities could multiply a small file, or read others."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_document_type
    return parser


def _refuse_document_type(*_: object) -> None:
    raise DAMAGED


def local_name(name: str) -> str:
    return name.rpartition(":")[2]


def list_elements(data: bytes) -> list[tuple[str, dict[str, str]]]:
    """The local names and attributes of all elements of a small XML file, in their order. Prefixes are removed."""
    found: list[tuple[str, dict[str, str]]] = []
    parser = create_parser()
    parser.StartElementHandler = lambda name, attributes: found.append(
        (local_name(name), {local_name(key): value for key, value in attributes.items()})
    )
    parser.Parse(data, True)
    return found
