"""What happens when a command cannot write its output: its reader has ended, as in `coupons outbox | head`."""

import errno
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

STDOUT, STDERR = 1, 2
FAILED = 1
DIED_OF_SIGPIPE = 128 + signal.SIGPIPE
"""The exit code that a shell shows for a program that SIGPIPE has ended."""
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing to a file, which no connection to a service has."""


@contextmanager
def reporting_closed_output() -> Iterator[None]:
    """End this process by SIGPIPE if the block writes to a closed pipe, and with a message if its disk is full.

    Python ignores SIGPIPE, because the signal would also end a process whose connection to a service breaks.
    """
    try:
        yield
    except OSError as error:
        if not is_output_error(error):
            raise
        if isinstance(error, BrokenPipeError):
            _die_of_sigpipe()
        _discard_unwritten()
        click.echo(f"coupons: the output cannot be written: {(error.strerror or '').lower()}", err=True)
        sys.exit(FAILED)


def is_output_error(error: BaseException) -> bool:
    """Return whether the output of this process cannot be written, rather than a connection to a service is broken."""
    if isinstance(error, BrokenPipeError):
        return _is_output_closed()
    return isinstance(error, OSError) and error.errno in UNWRITABLE


def _is_output_closed() -> bool:
    """Return whether stdout or stderr is a pipe without a reader."""
    poll = select.poll()
    for descriptor in (STDOUT, STDERR):
        poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _die_of_sigpipe() -> NoReturn:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    os._exit(DIED_OF_SIGPIPE)  # process 1 of a container ignores the signal


def _discard_unwritten() -> None:
    """Drop the text that could not be written, or Python would try again at exit and report a second error."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream, descriptor in ((sys.stdout, STDOUT), (sys.stderr, STDERR)):
        with suppress(OSError):
            stream.flush()
            continue
        os.dup2(nothing, descriptor)
        stream.flush()
    os.close(nothing)
