"""Sources by URL: files in a folder, objects in buckets, and invalid URLs."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore import put
from obstore.store import S3Store

from coupons.settings import Settings
from coupons.sources import SourceError, SourceLimits, SourceUnavailable, open_source
from tests.sources_servers import BUCKET, Reply, call, object_store, web_server

CODES = b"".join(b"SPRING-%06d\n" % number for number in range(200_000))  # 2.8 MB


def limits(**others: Any) -> SourceLimits:
    return SourceLimits.from_settings(Settings(_env_file=None, **others))


async def content(url: str, limits: SourceLimits) -> bytes:
    async with open_source(url, limits) as source:
        return b"".join([piece async for piece in source.pieces])


async def rejection(url: str, limits: SourceLimits) -> str:
    with pytest.raises(SourceError) as caught:
        await content(url, limits)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "spring.txt").write_bytes(CODES)
    (tmp_path / "secret.txt").write_text("C\n")
    return tmp_path / "in"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with object_store() as url:
        yield url


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An S3 server. The environment variables that configure its use are set."""
    for variable in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-secret")
    return server


IN_BUCKET = limits(import_buckets=BUCKET)


async def test_a_file_is_read_from_its_folder(folder: Path) -> None:
    """A file is read by any path or link that stays inside the folder.

    The source has the size of the file and its name without the path.
    """
    (folder / "sömmer codes.txt").symlink_to(folder / "spring.txt")
    for path in ("spring.txt", "../in/spring.txt", "s%C3%B6mmer%20codes.txt"):
        async with open_source(f"file://{folder}/{path}", limits(import_folder=folder)) as source:
            assert source.size == len(CODES)
            assert source.name in {"spring.txt", "sömmer codes.txt"}
            assert b"".join([piece async for piece in source.pieces]) == CODES


@pytest.mark.parametrize("path", ["../secret.txt", "link.txt", "%2e%2e/secret.txt", "/etc/passwd", "../missing.txt"])
async def test_no_file_outside_the_folder_is_read(folder: Path, path: str) -> None:
    """No path, encoded or not, and no link leads out of the folder. The error does not reveal whether a file exists."""
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    url = f"file://{path}" if path.startswith("/") else f"file://{folder}/{path}"
    assert f"is not in {folder}" in await rejection(url, limits(import_folder=folder))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing.txt", "missing.txt cannot be read: No such file or directory"),
        ("more", "more cannot be read: Is a directory"),
        ("more/", "the folder cannot be read: Is a directory"),
        ("fifo", "fifo is not a regular file"),
        ("circle", "circle cannot be read: invalid path"),
        ("a%00b", "a?b cannot be read: invalid path"),
        ("x" * 300, f"{'x' * 300} cannot be read: File name too long"),
    ],
)
async def test_only_regular_files_are_read(folder: Path, path: str, reason: str) -> None:
    """Only regular files are read: opening a FIFO does not wait for a writer."""
    (folder / "more").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "circle").symlink_to(folder / "circle")
    assert await rejection(f"file://{folder}/{path}", limits(import_folder=folder)) == reason


async def test_devices_and_unreadable_files_are_rejected() -> None:
    """The error for a device or an unreadable file contains the reason that the operating system gives."""
    assert await rejection("file:///dev/null", limits(import_folder="/dev")) == "null is not a regular file"
    process = Path(f"/proc/{os.getpid()}")
    assert await rejection(f"file://{process}/mem", limits(import_folder=process)) == (
        "mem cannot be read: Input/output error"
    )


async def test_a_large_file_is_rejected_before_it_is_read(folder: Path) -> None:
    """A file that is larger than the limit is rejected before it is read."""
    allowed = limits(import_folder=folder, import_max_bytes=1_000)
    async with asyncio.timeout(5):
        reason = await rejection(f"file://{folder}/spring.txt", allowed)
    assert reason == "spring.txt: 2800000 bytes exceed the limit of 1000 (COUPONS_IMPORT_MAX_BYTES)"


async def test_sources_are_disabled_by_default(folder: Path) -> None:
    """Without a folder, hosts and buckets in the settings, no source can be read.

    Other kinds of URL are never supported.
    """
    assert "COUPONS_IMPORT_FOLDER is not set" in await rejection(f"file://{folder}/spring.txt", limits())
    assert "COUPONS_IMPORT_HOSTS" in await rejection("https://shop.example/codes.txt", limits())
    assert "COUPONS_IMPORT_BUCKETS" in await rejection("s3://shop/codes.txt", limits())
    for url in ("http://shop.example/codes.txt", "ftp://shop.example/a", "codes.txt", "", "https//x"):
        assert "unsupported source" in await rejection(url, limits())
    for url in ("https://[::1/codes.txt", "file://[/codes.txt"):
        assert "is not a valid URL" in await rejection(url, limits())


async def test_an_object_is_read_from_its_bucket(store: str) -> None:
    """An object is read in chunks, and its size is known from the start."""
    put(S3Store(BUCKET, client_options={"allow_http": True}), "2026/spring codes.csv", CODES)
    async with open_source(f"s3://{BUCKET}/2026/spring%20codes.csv", IN_BUCKET) as source:
        assert (source.name, source.size) == ("spring codes.csv", len(CODES))
        pieces = [piece async for piece in source.pieces]
    assert b"".join(pieces) == CODES
    assert len(pieces) > 5


async def test_a_large_object_is_rejected_before_it_is_read(store: str) -> None:
    """An object is rejected before it is read if the store reports a size above the limit."""
    put(S3Store(BUCKET, client_options={"allow_http": True}), "codes.csv", CODES)
    allowed = limits(import_buckets=BUCKET, import_max_bytes=1_000)
    assert (await rejection(f"s3://{BUCKET}/codes.csv", allowed)).startswith(
        "codes.csv: 2800000 bytes exceed the limit of 1000"
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"s3://{BUCKET}/missing.csv", "missing.csv: no such object in bucket shop"),
        (f"s3://{BUCKET}/a//b.csv", "b.csv: no such object in bucket shop"),
        (f"s3://{BUCKET}/a/%2E%2E/b.csv", "b.csv: no such object in bucket shop"),
        ("s3://other/codes.csv", "codes.csv: other is not an allowed bucket"),
        (f"s3://user:hidden@{BUCKET}/codes.csv", "must not contain a user or password"),
        (f"s3://{BUCKET}/", "s3://bucket/key"),
        (f"s3://{BUCKET}", "s3://bucket/key"),
        (f"s3://{BUCKET}/codes.csv?token=hidden", "s3://bucket/key"),
    ],
)
async def test_only_objects_of_allowed_buckets_are_read(store: str, url: str, reason: str) -> None:
    """Missing objects, other buckets and invalid URLs are rejected without revealing secrets."""
    found = await rejection(url, IN_BUCKET)
    assert reason in found
    assert "hidden" not in found


async def test_wrong_credentials_are_reported(store: str) -> None:
    """The error for wrong credentials does not contain them."""
    call(f"{store}/moto-api/reset-auth", "POST", b"0")  # from now on requests need authorization
    try:
        reason = await rejection(f"s3://{BUCKET}/codes.csv", IN_BUCKET)
    finally:
        call(f"{store}/moto-api/reset-auth", "POST", b"inf")
    assert reason == "codes.csv: access to bucket shop denied with the credentials in AWS_…"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://[", "ftp://127.0.0.1"])
async def test_an_unreachable_store_may_come_back(store: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store without a listener or with a wrong setting is unavailable: the import can continue once this is fixed."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(SourceUnavailable, match=r"codes\.csv: bucket shop unreachable"):
        await content(f"s3://{BUCKET}/codes.csv", IN_BUCKET)


async def test_a_truncated_object_is_unavailable(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated object makes the source unavailable, because the received part is not the whole file."""
    headers = ('ETag: "1"', "Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT")
    cut = Reply(CODES[:100_000], headers=headers, declared_length=len(CODES), then="cut")
    async with web_server({f"/{BUCKET}/codes.csv": cut}) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{web.port}")
        with pytest.raises(SourceUnavailable, match=r"codes\.csv: bucket shop unreachable or connection lost"):
            await content(f"s3://{BUCKET}/codes.csv", IN_BUCKET)
