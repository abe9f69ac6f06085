"""Bodies of requests, read in pieces and never beyond a limit: a command, a file, a form, a form with a file."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from coupons.sources import PIECE_BYTES
from producers.web.errors import InvalidRequest, TooLarge

MAX_FIELDS_BYTES = 10_000
"""Of a form without its file."""

IDLE_SECONDS = 30
"""Without a byte: a client that has gone to sleep would keep others from what it holds."""


async def limited(request: Request, most_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes in.

    Raises:
        TooLarge: before anything is read, if the client says its length.
        HTTPException: 408, nothing has come for IDLE_SECONDS.
    """
    declared = request.headers.get("content-length", "")
    read = 0
    if declared.isdecimal() and int(declared) > most_bytes:
        raise TooLarge(f"{int(declared):,} bytes, at most {most_bytes:,} are taken")
    async for piece in _arriving(request):
        read += len(piece)
        if read > most_bytes:
            raise TooLarge(f"at most {most_bytes:,} bytes are taken")
        yield piece


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            reason = f"nothing has come for {IDLE_SECONDS} s; send it again"
            raise HTTPException(408, reason, {"Connection": "close"}) from None
        yield piece


async def whole(request: Request, most_bytes: int) -> bytes:
    """Raises TooLarge."""
    return b"".join([piece async for piece in limited(request, most_bytes)])


async def cut(parts: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of PIECE_BYTES, whatever a network made of them; the last one may be shorter."""
    held = bytearray()
    async for part in parts:
        held += part
        while len(held) >= PIECE_BYTES:
            yield bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
    if held:
        yield bytes(held)


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form without a file. Raises TooLarge."""
    return dict(parse_qsl((await whole(request, MAX_FIELDS_BYTES)).decode("utf-8", "replace")))


@dataclass(slots=True)
class _Part:
    disposition: bytearray = field(default_factory=bytearray)
    name: str = ""
    file_name: str | None = None
    data: bytearray = field(default_factory=bytearray)


class FileForm:
    """A form whose last field is a file (RFC 7578): `read_fields` first, then `content`.

    Starlette's own parser spools the file to a temporary folder, which a container with a read-only disk has not got.

    Both methods raise InvalidRequest and TooLarge.
    """

    def __init__(self, request: Request, *, most_bytes: int) -> None:
        """`most_bytes` of the file, about: the form around it is allowed what it needs."""
        self._body = limited(request, most_bytes + MAX_FIELDS_BYTES)
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
        """All fields before the file."""
        while self._file is None and not self._ended:
            if self._read > MAX_FIELDS_BYTES:
                raise TooLarge(f"the form has more than {MAX_FIELDS_BYTES:,} bytes before its file")
            await self._read_on()
        if not self.file_name:
            raise InvalidRequest("no file was chosen")
        return {part.name: part.data.decode("utf-8", "replace") for part in self._parts if part is not self._file}

    @property
    def file_name(self) -> str:
        """As the browser says it, without what cannot be seen; "" if there is no file."""
        said = (self._file.file_name if self._file else None) or ""
        return "".join(filter(str.isprintable, said))

    async def content(self) -> AsyncIterator[bytes]:
        """The file, in parts as they come in."""
        data = self._file.data if self._file else bytearray()
        yield bytes(data)
        while not self._ended:
            data.clear()
            await self._read_on()
            yield bytes(data)

    async def _read_on(self) -> None:
        try:
            piece = await anext(self._body)
            self._parser.write(piece)
        except StopAsyncIteration:
            raise InvalidRequest("the form ends before its end") from None
        except FormParserError:
            raise InvalidRequest("the form is not multipart/form-data") from None
        self._read += len(piece)

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
        if self._file in (None, self._parts[-1]):  # nothing is kept of what follows the file
            self._parts[-1].data += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest("the form is not multipart/form-data")
    return options[b"boundary"]
