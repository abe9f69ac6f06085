"""Logs on stderr, as text or as JSON lines. They never contain codes or addresses."""

import logging
import os
import sys
from typing import TextIO, cast

import structlog

from coupons.settings import Settings


def configure(settings: Settings) -> None:
    """Configure structlog and the logs of libraries. `main` calls this once."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _LossyLog(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.CRITICAL)  # the logs of libraries contain values: bodies, parameters, addresses


class _LossyLog:
    """A log whose lines are dropped while it cannot be written: its reader has ended, or the disk is full.

    A worker continues without a log. An error in the middle of a batch would leave mails uncertain.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            self._drop(error)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Drop what cannot be written. A closed pipe gets no reader again, and Python flushes the rest at exit."""
        if isinstance(error, BrokenPipeError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._file.fileno())
            os.close(nothing)
