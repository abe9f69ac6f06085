"""`s3:` sources: objects of configured buckets, in whatever store speaks S3.

Credentials, region and endpoint come from the environment, under the names that every tool for S3 knows: AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP …
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coupons.sources.limits import Rules
from coupons.sources.source import Source, SourceError, SourceInterrupted, file_name

if TYPE_CHECKING:
    from obstore import GetResult

GATHER_BYTES = 262_144
_CONNECT = timedelta(seconds=10)
_READ = timedelta(seconds=60)
_WHOLE = timedelta(days=7)  # 30 s by default, which is no time for a large file
_RETRIES = 2  # of a request, a body that broke off included; the rest is up to whoever asked


@asynccontextmanager
async def streamed(url: str, rules: Rules) -> AsyncIterator[Source]:
    """The object that `s3://bucket/key` names.

    Raises:
        SourceError: another bucket than those configured, no such object, or no right to read it.
        SourceInterrupted: the store's or the network's trouble.
    """
    bucket, key = _place(url)
    name = file_name(key, "the object")
    if bucket not in rules.buckets:
        raise SourceError(f"{name}: {bucket} is not among the buckets of s3: sources (COUPONS_IMPORT_BUCKETS)")
    with _told(name, bucket):
        found = await _get(bucket, key)
    yield Source(name, found.meta["size"], _pieces(found, name, bucket))


def _place(url: str) -> tuple[str, str]:
    """Bucket and key. An empty key would list the bucket."""
    split = urlsplit(url)
    key = unquote(split.path.removeprefix("/"))
    if not split.netloc or not key or split.query or split.fragment:
        raise SourceError("an s3: source is written s3://bucket/key, with %3F for ? and %23 for # in the key")
    if "@" in split.netloc:
        raise SourceError("an s3: source may hold neither user nor password: credentials are in AWS_…")
    return split.netloc, key


async def _get(bucket: str, key: str) -> "GetResult":
    import obstore  # noqa: PLC0415 - costs 20 ms, which `coupons --help` has not
    from obstore.store import S3Store  # noqa: PLC0415 - as above

    store = S3Store(
        bucket,
        client_options={
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true"},  # not read beside options
            "connect_timeout": _CONNECT,
            "read_timeout": _READ,
            "timeout": _WHOLE,
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _READ},
    )
    return await obstore.get_async(store, key)


async def _pieces(found: "GetResult", name: str, bucket: str) -> AsyncIterator[bytes]:
    with _told(name, bucket):
        async for piece in found.stream(min_chunk_size=GATHER_BYTES):
            yield bytes(piece)


@contextmanager
def _told(name: str, bucket: str) -> Iterator[None]:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError  # noqa: PLC0415 - as above

    try:
        yield
    except (FileNotFoundError, ValueError) as error:  # ValueError: a key such as a//b
        raise SourceError(f"{name} is not in the bucket {bucket}, or there is no such bucket") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise SourceError(f"{name}: the bucket {bucket} may not be read with the credentials in AWS_…") from error
    except Exception as error:  # a malformed endpoint ends in a panic, which is an Exception of obstore's own
        raise SourceInterrupted(
            f"{name}: the bucket {bucket} cannot be reached or broke off; are AWS_ENDPOINT_URL and AWS_REGION right?"
        ) from error
