"""What an error of a library or of the operating system means, without the text that another program sent.

Such an error may quote bytes of a server, a file or a URL, and with them an address, a code or a password. Logs,
reasons and messages show the result of these functions instead of the error's text.
"""

import os
import socket
import ssl
import traceback


def describe(error: BaseException) -> str:
    """Return the reason of a failed connection or file operation, in a few words.

    A library's own error is described by the error of the operating system that caused it, or else by its class.
    """
    cause = _root(error)
    match cause:
        case ssl.SSLCertVerificationError():
            reason = f"certificate verification failed: {cause.verify_message}"
        case ssl.SSLError(reason=str(name)):
            reason = f"TLS failed: {name.replace('_', ' ').lower()}"
        case socket.gaierror():
            reason = "the host name cannot be resolved"
        case TimeoutError():
            reason = "timed out"
        case OSError(errno=int(number)):
            reason = os.strerror(number).lower()
        case OSError():  # asyncio's error for several addresses of a host has no number
            reason = "no connection"
        case _:
            reason = type(cause).__name__
    return reason


def error_location(error: BaseException) -> str:
    """Return the functions and lines where an error was raised, without the text of the error."""
    error = first_error(error)
    return " < ".join(
        f"{frame.name}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__)[-4:])
    )


def first_error(error: BaseException) -> BaseException:
    """Return the first error of a task group, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _root(error: BaseException) -> BaseException:
    """Return the error of the operating system that the chain of causes ends with, or the error itself."""
    found, cause = error, error.__cause__
    while cause is not None:
        found = cause if isinstance(cause, OSError) else found
        cause = cause.__cause__
    return found
