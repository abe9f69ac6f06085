"""Arbitrary sources, compressed or not, give their text within limits of size and memory, or a one-line error."""

import asyncio
import gzip
import io
import tracemalloc
import zipfile
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from coupons.settings import Settings
from coupons.sources import Source, SourceError, SourceLimits, SourceUnavailable, Text
from tests.fuzz.fuzzing import CUTS, cut, damaged, fuzzed

MOST_BYTES = 200_000
LIMITS = SourceLimits.from_settings(Settings(_env_file=None, import_max_bytes=MOST_BYTES))
MEMORY = 24 << 20
"""Limit for a few chunks of 1 MiB. The decompressed text is never in memory as a whole."""
TEXTS = st.binary(max_size=500) | st.integers(0, 4_000_000).map(bytes) | st.just(b"SPRING-0001\n" * 9_000)


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for name in draw(
            st.lists(st.sampled_from(["a.csv", "b.csv", "d/", "__MACOSX/a", "../../etc"]), max_size=3, unique=True)
        ):
            archive.writestr(name, draw(TEXTS))
        archive.comment = draw(st.binary(max_size=20))
    return file.getvalue()


GZIPPED = st.lists(TEXTS, min_size=1, max_size=3).map(lambda members: b"".join(map(gzip.compress, members)))
WHOLE = TEXTS | GZIPPED | zips()


async def decompress(pieces: list[bytes]) -> tuple[bytes, str]:
    """Return the text up to the error, and the error; "" if there is none."""

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    text = Text(Source("codes", None, stream()), LIMITS)
    read = bytearray()
    try:
        async for piece in text:
            read += piece
    except (SourceError, SourceUnavailable) as error:
        return bytes(read), str(error)
    return bytes(read), ""


@fuzzed()
@given(WHOLE | damaged(WHOLE) | st.binary(max_size=100).map(lambda tail: b"\x1f\x8b\x08" + tail), CUTS)
def test_any_source_is_read_within_bounds_or_rejected(data: bytes, cuts: list[float]) -> None:
    """A source gives no more text than the limit, needs little memory, and gives the same result for any chunks."""
    tracemalloc.start()
    try:
        read, error = asyncio.run(decompress(cut(data, cuts)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read) <= MOST_BYTES
    assert peak - len(data) < MEMORY
    assert "\n" not in error
    again, why = asyncio.run(decompress([data]))
    assert bool(why) == bool(error)
    assert again == read or error
