"""Reads files of codes and of recipients: decoding, CSV rows, columns, checks of each line."""
