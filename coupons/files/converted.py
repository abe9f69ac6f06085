"""The mark of a cell that a spreadsheet may have converted."""

CONVERTED = "\ufdd0"
"""Ends the text of a date, a time, a truth value or a number with an exponent.

Spreadsheets turn codes such as MAR2, TRUE and 1E5 into such cells, so the code reader rejects them. For a recipient
they are values, so that reader removes the mark. Unicode reserves this character for use inside a program.
"""
