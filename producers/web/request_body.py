"""Reads request bodies in chunks and up to a limit: commands, files, and forms with or without a file."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from producers.web.errors import InvalidRequest, TooLarge

MAX_FIELDS_BYTES = 10_000
"""Limits the fields of a form, not counting its file."""

MAX_DIGITS = 18
"""Digits of a Content-Length. Python refuses to convert 5,000 of them."""

IDLE_SECONDS = 30
"""How long a client may send nothing. The limit is needed because an upload holds a database connection."""


async def read_limited(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Raises:
        TooLarge: the body exceeds the limit. If it has a Content-Length, nothing is read.
        HTTPException: 408, no data arrived for IDLE_SECONDS.
    """
    declared = request.headers.get("content-length", "")
    read = 0
    if declared.isdecimal() and (len(declared) > MAX_DIGITS or int(declared) > max_bytes):
        raise TooLarge(f"the body exceeds the limit of {max_bytes:,} bytes")
    async for chunk in _chunks(request):
        read += len(chunk)
        if read > max_bytes:
            raise TooLarge(f"the body exceeds the limit of {max_bytes:,} bytes")
        yield chunk


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            reason = f"no data received for {IDLE_SECONDS} s; please retry"
            raise HTTPException(408, reason, {"Connection": "close"}) from None
        yield chunk


async def read_all(request: Request, max_bytes: int) -> bytes:
    """Return the whole body. Raises TooLarge."""
    return b"".join([chunk async for chunk in read_limited(request, max_bytes)])


async def read_form(request: Request, *, max_bytes: int = MAX_FIELDS_BYTES) -> dict[str, str]:
    """Return the fields of a form without a file. Raises InvalidRequest, TooLarge."""
    return _checked(dict(parse_qsl((await read_all(request, max_bytes)).decode("utf-8", "replace"))))


def _checked(fields: dict[str, str]) -> dict[str, str]:
    """Raise InvalidRequest for a field with a NUL character, which PostgreSQL's text cannot contain."""
    for name, value in fields.items():
        if "\0" in value:
            raise InvalidRequest(f"{name}: contains a NUL character")
    return fields


@dataclass(slots=True)
class _Part:
    disposition: bytearray = field(default_factory=bytearray)
    name: str = ""
    file_name: str | None = None
    data: bytearray = field(default_factory=bytearray)


class FileForm:
    """A form whose last field is a file (RFC 7578): call `read_fields` first, then `content`.

    Starlette's own parser writes the file to a temporary folder, which a container with a read-only disk does not have.

    Both methods raise InvalidRequest and TooLarge.
    """

    def __init__(self, request: Request, *, max_bytes: int) -> None:
        """`max_bytes` limits the file approximately: the body may exceed it by MAX_FIELDS_BYTES, for other fields."""
        self._body = read_limited(request, max_bytes + MAX_FIELDS_BYTES)
        self._parser = MultipartParser(
            _boundary(request),
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": self._add_to_header,
                "on_header_value": self._add_to_value,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_end": self._end,
            },
        )
        self._read = 0
        self._header = bytearray()
        self._parts: list[_Part] = []
        self._file: _Part | None = None
        self._ended = False

    async def read_fields(self) -> dict[str, str]:
        """Return the fields before the file."""
        while self._file is None and not self._ended:
            if self._read > MAX_FIELDS_BYTES:
                raise TooLarge(f"the form fields exceed the limit of {MAX_FIELDS_BYTES:,} bytes")
            await self._read_more()
        if not self.file_name:
            raise InvalidRequest("file: no file was selected")
        parts = (part for part in self._parts if part is not self._file)
        return _checked({part.name: part.data.decode("utf-8", "replace") for part in parts})

    @property
    def file_name(self) -> str:
        """The file's name as the browser sent it, without unprintable characters; "" if there is no file."""
        name = (self._file.file_name if self._file else None) or ""
        return "".join(filter(str.isprintable, name))

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the file as it arrives."""
        data = self._file.data if self._file else bytearray()
        yield bytes(data)
        while not self._ended:
            data.clear()
            await self._read_more()
            yield bytes(data)

    async def _read_more(self) -> None:
        try:
            chunk = await anext(self._body)
            self._parser.write(chunk)
        except StopAsyncIteration:
            raise InvalidRequest("incomplete form data") from None
        except FormParserError:
            raise InvalidRequest("the form is not multipart/form-data") from None
        self._read += len(chunk)

    def _begin_part(self) -> None:
        self._parts.append(_Part())

    def _begin_header(self) -> None:
        self._header.clear()

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._parts[-1].disposition += data[start:end]

    def _end_headers(self) -> None:
        part = self._parts[-1]
        _, options = parse_options_header(bytes(part.disposition))
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options and self._file is None:
            part.file_name = options[b"filename"].decode("utf-8", "replace")
            self._file = part

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._file in (None, self._parts[-1]):  # fields after the file are dropped
            self._parts[-1].data += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest("the form is not multipart/form-data")
    return options[b"boundary"]
