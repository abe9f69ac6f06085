"""Spreadsheets (.xlsx, .xls, .ods) as CSV text, row by row. A process of its own reads them: see `__main__`."""
