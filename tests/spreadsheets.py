"""Spreadsheets that tests write: .xlsx by XlsxWriter, .xls by xlwt, .ods as XML."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import xlsxwriter
import xlwt

Cell = str | int | float | bool | None
Table = Sequence[Sequence[Cell]]


def xlsx(sheets: Mapping[str, Table], **options: Any) -> bytes:
    """A workbook with these sheets. Strings are text cells."""
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True, **options}) as workbook:
        for name, table in sheets.items():
            sheet = workbook.add_worksheet(name)
            for row, cells in enumerate(table):
                for column, cell in enumerate(cells):
                    if isinstance(cell, str):
                        sheet.write_string(row, column, cell)
                    elif cell is not None:
                        sheet.write(row, column, cell)
    return content.getvalue()


def xlsx_parts(sheet: str, *, styles: str = "", texts: str = "", prefix: str = "") -> bytes:
    """A workbook whose XML the test writes: the content of `sheetData`, the number formats and the shared texts."""
    colon = f"{prefix}:" if prefix else ""
    declared = f"xmlns{':' + prefix if prefix else ''}='http://schemas.openxmlformats.org/spreadsheetml/2006/main'"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    return make_zip({
        "_rels/.rels": "<Relationships>"
        f"<Relationship Id='a' Type='{relations}/officeDocument' Target='xl/workbook.xml'/></Relationships>",
        "xl/workbook.xml": f"<{colon}workbook {declared} xmlns:r='{relations}'><{colon}sheets>"
        f"<{colon}sheet name='Codes' sheetId='1' r:id='s1'/></{colon}sheets></{colon}workbook>",
        "xl/_rels/workbook.xml.rels": "<Relationships>"
        f"<Relationship Id='s1' Type='{relations}/worksheet' Target='worksheets/sheet1.xml'/>"
        f"<Relationship Id='s2' Type='{relations}/styles' Target='/xl/styles.xml'/>"
        f"<Relationship Id='s3' Type='{relations}/sharedStrings' Target='sharedStrings.xml'/></Relationships>",
        "xl/styles.xml": f"<styleSheet>{styles}</styleSheet>",
        "xl/sharedStrings.xml": f"<sst>{texts}</sst>",
        "xl/worksheets/sheet1.xml": f"<{colon}worksheet {declared}><{colon}sheetData>{sheet}</{colon}sheetData>"
        f"</{colon}worksheet>",
    })  # fmt: skip


def xls(sheets: Mapping[str, Table]) -> bytes:
    workbook = xlwt.Workbook()
    for name, table in sheets.items():
        sheet = workbook.add_sheet(name)
        for row, cells in enumerate(table):
            for column, cell in enumerate(cells):
                if cell is not None:
                    sheet.write(row, column, cell)
    content = io.BytesIO()
    workbook.save(content)
    return content.getvalue()


def ods(sheets: Mapping[str, Table]) -> bytes:
    tables = "".join(
        f"<table:table table:name={quoteattr(name)}>"
        + "".join(f"<table:table-row>{''.join(map(ods_cell, cells))}</table:table-row>" for cells in table)
        + "</table:table>"
        for name, table in sheets.items()
    )
    return ods_parts(tables)


def ods_cell(cell: Cell) -> str:
    if cell is None:
        return "<table:table-cell/>"
    if isinstance(cell, bool):
        return f'<table:table-cell office:value-type="boolean" office:boolean-value="{str(cell).lower()}"/>'
    if isinstance(cell, int | float):
        value = f'office:value-type="float" office:value="{cell}"'
        return f"<table:table-cell {value}><text:p>{cell}</text:p></table:table-cell>"
    paragraphs = "".join(f"<text:p>{ods_text(line)}</text:p>" for line in cell.split("\n"))
    return f'<table:table-cell office:value-type="string">{paragraphs}</table:table-cell>'


def ods_text(text: str) -> str:
    """The text with elements for white space, as OpenDocument writes it."""
    return escape(text).replace("\t", "<text:tab/>").replace(" ", "<text:s/>")


def ods_parts(tables: str, *, manifest: str = "", styles: str = "") -> bytes:
    namespaces = " ".join(
        f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for prefix, name in {"office": "office", "table": "table", "text": "text", "style": "style"}.items()
    )
    return make_zip({
        "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
        "content.xml": f'<?xml version="1.0"?><office:document-content {namespaces} xmlns:calcext="urn:calcext">'
        f"<office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body></office:document-content>",
        "META-INF/manifest.xml": f'<manifest:manifest xmlns:manifest="urn:m">{manifest}</manifest:manifest>',
    })  # fmt: skip


def make_zip(members: Mapping[str, str | bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()
