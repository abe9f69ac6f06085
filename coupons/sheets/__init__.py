"""Spreadsheets (.xlsx, .xls, .ods) as CSV text, row by row. A process of its own reads them: see `__main__`."""

import struct

SEPARATOR = "\t"
"""Tabs are rare in cells, commas are not: the readers split rows without quotes three times as fast."""

FRAME = struct.Struct(">cII")
"""The head of a frame: its kind, how many millionths of the sheet were read, and the size of its content."""

SHEET, TEXT, END, REFUSED, UNAVAILABLE = b"S", b"T", b"E", b"R", b"U"
"""The kinds of frames: the chosen sheet (JSON), a part of the text, the end with notices (JSON), an error message that
does not or may change with a later retry.
"""
