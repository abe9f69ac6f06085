"""`s3:` sources: objects in allowed buckets, in any store with an S3 API.

Credentials, region and endpoint come from the usual environment variables: AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP …
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coupons.sources.limits import SourceLimits
from coupons.sources.source import Source, SourceError, SourceUnavailable, file_name

if TYPE_CHECKING:
    from obstore import GetResult

GATHER_BYTES = 262_144
_CONNECT = timedelta(seconds=10)
_READ = timedelta(seconds=60)
_WHOLE = timedelta(days=7)  # the default of 30 s is too short for a large file
_RETRIES = 2  # for each request, also after an aborted body; in addition the import is retried later


@asynccontextmanager
async def open_object(url: str, limits: SourceLimits) -> AsyncIterator[Source]:
    """The object `s3://bucket/key`.

    Raises:
        SourceError: the bucket is not allowed, the object does not exist, or access is denied.
        SourceUnavailable: the store or the network fails.
    """
    bucket, key, name = check_bucket(url, limits)
    with _translate_s3_errors(name, bucket):
        found = await _get(bucket, key)
    yield Source(name, found.meta["size"], _pieces(found, name, bucket))


def check_bucket(url: str, limits: SourceLimits) -> tuple[str, str, str]:
    """The bucket, the key and the name in the URL of an object. Raises SourceError if the bucket is not allowed."""
    bucket, key = _bucket_and_key(url)
    name = file_name(key, "the object")
    if bucket not in limits.buckets:
        raise SourceError(f"{name}: {bucket} is not an allowed bucket (COUPONS_IMPORT_BUCKETS)")
    return bucket, key, name


def _bucket_and_key(url: str) -> tuple[str, str]:
    """The bucket and the key in the URL. Raises SourceError without both: an empty key would list the bucket."""
    split = urlsplit(url)
    key = unquote(split.path.removeprefix("/"))
    if not split.netloc or not key or split.query or split.fragment:
        raise SourceError("an s3: source has the form s3://bucket/key, with %3F for ? and %23 for # in the key")
    if "@" in split.netloc:
        raise SourceError("an s3: source must not contain a user or password: set the credentials in AWS_…")
    return split.netloc, key


async def _get(bucket: str, key: str) -> "GetResult":
    import obstore  # noqa: PLC0415 - takes 20 ms, too long for `coupons --help`
    from obstore.store import S3Store  # noqa: PLC0415 - as above

    store = S3Store(
        bucket,
        client_options={
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true"},  # not read otherwise
            "connect_timeout": _CONNECT,
            "read_timeout": _READ,
            "timeout": _WHOLE,
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _READ},
    )
    return await obstore.get_async(store, key)


async def _pieces(found: "GetResult", name: str, bucket: str) -> AsyncIterator[bytes]:
    with _translate_s3_errors(name, bucket):
        async for piece in found.stream(min_chunk_size=GATHER_BYTES):
            yield bytes(piece)


@contextmanager
def _translate_s3_errors(name: str, bucket: str) -> Iterator[None]:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError  # noqa: PLC0415 - as above

    try:
        yield
    except (FileNotFoundError, ValueError) as error:  # ValueError: a key such as a//b
        raise SourceError(f"{name}: no such object in bucket {bucket}, or no such bucket") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise SourceError(f"{name}: access to bucket {bucket} denied with the credentials in AWS_…") from error
    except Exception as error:  # a malformed endpoint causes a panic, an Exception of obstore
        raise SourceUnavailable(
            f"{name}: bucket {bucket} unreachable or connection lost; check AWS_ENDPOINT_URL and AWS_REGION"
        ) from error
