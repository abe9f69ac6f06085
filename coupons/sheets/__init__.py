"""Spreadsheets (.xlsx, .xls, .ods) as CSV text, row by row. A process of its own reads them: see `__main__`."""

import struct

SEPARATOR = "\t"
"""Tabs are rare in cells, commas are not: the readers split rows without quotes three times as fast."""

CONVERTED = "\ufdd0"
"""Ends the text of a date, a time, a truth value or a number with an exponent.

Spreadsheets turn codes such as MAR2, TRUE and 1E5 into such cells, so the code reader rejects them. For a recipient
they are values, so that reader removes the mark. Unicode reserves this character for use inside a program.
"""

FRAME = struct.Struct(">cII")
"""The head of a frame: its kind, how many millionths of the sheet were read, and the size of its content."""

SHEET, TEXT, END, REFUSED, UNAVAILABLE = b"S", b"T", b"E", b"R", b"U"
"""The kinds of frames: the chosen sheet (JSON), a part of the text, the end with notices (JSON), an error message that
does not or may change with a later retry.
"""
