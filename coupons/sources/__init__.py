"""Where imports come from: files under a folder, of configured hosts, of configured buckets; packed or not.

    async with open_source("https://shop.example/spring.csv.gz", Rules.of(settings)) as source:
        async for piece in Text(source, rules):
            take(reader.feed(piece))

Nothing holds a file in memory, and nothing that somebody else has made, a name, a size or a packed file, is believed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from coupons.sources import https, local, s3
from coupons.sources.limits import Rules
from coupons.sources.source import PIECE_BYTES, Source, SourceError, SourceInterrupted
from coupons.sources.text import Text

__all__ = ["PIECE_BYTES", "Rules", "Source", "SourceError", "SourceInterrupted", "Text", "open_source"]

_OPENERS = {"file": local.opened, "https": https.fetched, "s3": s3.streamed}


@asynccontextmanager
async def open_source(url: str, rules: Rules) -> AsyncIterator[Source]:
    """The source that a `file:`, `https:` or `s3:` URL names; leaving the context ends whatever reads from it.

    Raises:
        SourceError: the rules do not allow it, it is not there, or is too large.
        SourceInterrupted: it cannot be reached for now.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise SourceError("the source is not a URL: its host is malformed") from None
    if scheme not in _OPENERS:
        raise SourceError("sources of this kind are not offered; use an upload, file:, https: or s3:")
    async with _OPENERS[scheme](url, rules) as source:
        if source.size is not None:
            rules.check_size(source.name, source.size)
        yield source
