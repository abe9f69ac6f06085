"""What `open_source` makes of URLs: files under a folder, objects in buckets, and what is neither."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore import put
from obstore.store import S3Store

from coupons.settings import Settings
from coupons.sources import Rules, SourceError, SourceInterrupted, open_source
from tests.sources_servers import BUCKET, Reply, call, object_store, web_server

CODES = b"".join(b"SPRING-%06d\n" % number for number in range(200_000))  # 2.8 MB


def rules(**others: Any) -> Rules:
    return Rules.of(Settings(_env_file=None, **others))


async def content(url: str, allowed: Rules) -> bytes:
    async with open_source(url, allowed) as source:
        return b"".join([piece async for piece in source.pieces])


async def refusal(url: str, allowed: Rules) -> str:
    with pytest.raises(SourceError) as told:
        await content(url, allowed)
    return str(told.value)


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
    """An S3 server that the environment leads to."""
    for variable in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "no-secret")
    return server


IN_BUCKET = rules(import_buckets=BUCKET)


async def test_a_file_is_read_from_its_folder(folder: Path) -> None:
    """By any path and link that stays within it; its name has no path, its size is told."""
    (folder / "sömmer codes.txt").symlink_to(folder / "spring.txt")
    for path in ("spring.txt", "../in/spring.txt", "s%C3%B6mmer%20codes.txt"):
        async with open_source(f"file://{folder}/{path}", rules(import_folder=folder)) as source:
            assert source.size == len(CODES)
            assert source.name in {"spring.txt", "sömmer codes.txt"}
            assert b"".join([piece async for piece in source.pieces]) == CODES


@pytest.mark.parametrize("path", ["../secret.txt", "link.txt", "%2e%2e/secret.txt", "/etc/passwd", "../missing.txt"])
async def test_nothing_is_read_outside_of_the_folder(folder: Path, path: str) -> None:
    """By no path, encoded or not, and through no link; whether a file is there is not told either."""
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    url = f"file://{path}" if path.startswith("/") else f"file://{folder}/{path}"
    assert f"is not in {folder}" in await refusal(url, rules(import_folder=folder))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing.txt", "missing.txt cannot be read: No such file or directory"),
        ("more", "more cannot be read: Is a directory"),
        ("more/", "the folder cannot be read: Is a directory"),
        ("fifo", "fifo is not a file"),
        ("circle", "circle cannot be read: there is no such path"),
        ("a%00b", "a?b cannot be read: there is no such path"),
        ("x" * 300, f"{'x' * 300} cannot be read: File name too long"),
    ],
)
async def test_what_is_no_file_is_refused(folder: Path, path: str, reason: str) -> None:
    """And nobody waits for what will never come out of a fifo."""
    (folder / "more").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "circle").symlink_to(folder / "circle")
    assert await refusal(f"file://{folder}/{path}", rules(import_folder=folder)) == reason


async def test_devices_and_unreadable_files_are_refused() -> None:
    """Where the system has no text for a reader, it says why."""
    assert await refusal("file:///dev/null", rules(import_folder="/dev")) == "null is not a file"
    process = Path(f"/proc/{os.getpid()}")
    assert await refusal(f"file://{process}/mem", rules(import_folder=process)) == (
        "mem cannot be read: Input/output error"
    )


async def test_a_large_file_is_refused_before_it_is_read(folder: Path) -> None:
    """By its size."""
    allowed = rules(import_folder=folder, import_max_bytes=1_000)
    async with asyncio.timeout(5):
        reason = await refusal(f"file://{folder}/spring.txt", allowed)
    assert reason == "spring.txt has 2800000 bytes, at most 1000 are taken (COUPONS_IMPORT_MAX_BYTES)"


async def test_sources_are_off_by_default(folder: Path) -> None:
    """Without folder, hosts and buckets nothing can be read; other kinds of URL never."""
    assert "COUPONS_IMPORT_FOLDER is not set" in await refusal(f"file://{folder}/spring.txt", rules())
    assert "COUPONS_IMPORT_HOSTS" in await refusal("https://shop.example/codes.txt", rules())
    assert "COUPONS_IMPORT_BUCKETS" in await refusal("s3://shop/codes.txt", rules())
    for url in ("http://shop.example/codes.txt", "ftp://shop.example/a", "codes.txt", "", "https//x"):
        assert "are not offered" in await refusal(url, rules())
    for url in ("https://[::1/codes.txt", "file://[/codes.txt"):
        assert "is not a URL" in await refusal(url, rules())


async def test_an_object_is_read_from_its_bucket(store: str) -> None:
    """In pieces, with its size known from the start."""
    put(S3Store(BUCKET, client_options={"allow_http": True}), "2026/spring codes.csv", CODES)
    async with open_source(f"s3://{BUCKET}/2026/spring%20codes.csv", IN_BUCKET) as source:
        assert (source.name, source.size) == ("spring codes.csv", len(CODES))
        pieces = [piece async for piece in source.pieces]
    assert b"".join(pieces) == CODES
    assert len(pieces) > 5


async def test_a_large_object_is_refused_before_it_is_read(store: str) -> None:
    """By its size, which the store knows."""
    put(S3Store(BUCKET, client_options={"allow_http": True}), "codes.csv", CODES)
    allowed = rules(import_buckets=BUCKET, import_max_bytes=1_000)
    assert (await refusal(f"s3://{BUCKET}/codes.csv", allowed)).startswith("codes.csv has 2800000 bytes, at most 1000")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"s3://{BUCKET}/missing.csv", "missing.csv is not in the bucket shop"),
        (f"s3://{BUCKET}/a//b.csv", "b.csv is not in the bucket shop"),
        (f"s3://{BUCKET}/a/%2E%2E/b.csv", "b.csv is not in the bucket shop"),
        ("s3://other/codes.csv", "codes.csv: other is not among the buckets"),
        (f"s3://user:hidden@{BUCKET}/codes.csv", "neither user nor password"),
        (f"s3://{BUCKET}/", "s3://bucket/key"),
        (f"s3://{BUCKET}", "s3://bucket/key"),
        (f"s3://{BUCKET}/codes.csv?token=hidden", "s3://bucket/key"),
    ],
)
async def test_only_objects_of_configured_buckets_are_read(store: str, url: str, reason: str) -> None:
    """What is not there, not allowed or no object's URL is refused in words that hold nothing secret."""
    told = await refusal(url, IN_BUCKET)
    assert reason in told
    assert "hidden" not in told


async def test_wrong_credentials_are_told(store: str) -> None:
    """As such, without their values."""
    call(f"{store}/moto-api/reset-auth", "POST", b"0")  # from now on requests are authorised
    try:
        reason = await refusal(f"s3://{BUCKET}/codes.csv", IN_BUCKET)
    finally:
        call(f"{store}/moto-api/reset-auth", "POST", b"inf")
    assert reason == "codes.csv: the bucket shop may not be read with the credentials in AWS_…"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://[", "ftp://127.0.0.1"])
async def test_a_store_out_of_reach_may_come_back(store: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listening, or a setting that leads nowhere: an import can go on when that is mended."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(SourceInterrupted, match=r"codes\.csv: the bucket shop cannot be reached"):
        await content(f"s3://{BUCKET}/codes.csv", IN_BUCKET)


async def test_an_object_that_breaks_off_is_interrupted(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come until then is no whole file."""
    headers = ('ETag: "1"', "Last-Modified: Sun, 01 Nov 2026 00:00:00 GMT")
    cut = Reply(CODES[:100_000], headers=headers, says=len(CODES), then="cut")
    async with web_server({f"/{BUCKET}/codes.csv": cut}) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{web.port}")
        with pytest.raises(SourceInterrupted, match=r"codes\.csv: the bucket shop cannot be reached or broke off"):
            await content(f"s3://{BUCKET}/codes.csv", IN_BUCKET)
