"""Sources of imports: files in a folder, on allowed hosts and in allowed buckets, compressed or not.

    limits = SourceLimits.from_settings(settings)
    async with open_source("https://shop.example/spring.csv.gz", limits) as source:
        async for piece in Text(source, limits):
            process(reader.feed(piece))

No file is held in memory as a whole. Names, sizes and compressed data come from outside and are never trusted.
"""

from collections.abc import AsyncIterator, Callable
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
    "check_allowed",
    "open_source",
    "rechunk",
]

_OPENERS = {"file": local.open_file, "https": https.open_url, "s3": s3.open_object}
_CHECKS: dict[str, Callable[[str, SourceLimits], object]] = {
    "file": local.check_path,
    "https": https.Page.parse,
    "s3": s3.check_bucket,
}


def check_allowed(url: str, limits: SourceLimits) -> bool:
    """Check that the limits allow a `file:`, `https:` or `s3:` URL; nothing is read. Raises SourceError if they do not.

    Returns False if the setting for its scheme is empty: then another process may allow it.
    """
    scheme = urlsplit(url).scheme
    setting = {"file": limits.folder, "https": limits.hosts, "s3": limits.buckets}.get(scheme)
    if not setting:
        return False
    _CHECKS[scheme](url, limits)
    return True


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
