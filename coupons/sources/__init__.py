"""Sources of imports: files in a folder, on allowed hosts and in allowed buckets, compressed or not.

    limits = SourceLimits.from_settings(settings)
    async with open_source("https://shop.example/spring.csv.gz", limits) as source:
        async for piece in Text(source, limits):
            process(reader.feed(piece))

No file is held in memory as a whole. Names, sizes and compressed data come from outside and are never trusted.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from coupons.sources import https, local, s3
from coupons.sources.limits import SourceLimits
from coupons.sources.source import PIECE_BYTES, Source, SourceError, SourceUnavailable, rechunk
from coupons.sources.text import Text

__all__ = [
    "PIECE_BYTES",
    "Source",
    "SourceError",
    "SourceLimits",
    "SourceUnavailable",
    "Text",
    "open_source",
    "rechunk",
]

_OPENERS = {"file": local.open_file, "https": https.open_url, "s3": s3.open_object}


@asynccontextmanager
async def open_source(url: str, limits: SourceLimits) -> AsyncIterator[Source]:
    """The source for a `file:`, `https:` or `s3:` URL. Leaving the context aborts pending reads.

    Raises:
        SourceError: the source is not allowed, does not exist or is too large.
        SourceUnavailable: the source cannot be reached at present.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise SourceError("the source is not a valid URL: malformed host") from None
    if scheme not in _OPENERS:
        raise SourceError("unsupported source: use upload:, file:, https: or s3:")
    async with _OPENERS[scheme](url, limits) as source:
        if source.size is not None:
            limits.check_size(source.name, source.size)
        yield source
