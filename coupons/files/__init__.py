"""Readers of code and recipient files: decoding, CSV rows, columns, checks of each line."""
