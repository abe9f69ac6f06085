import asyncio
import gzip
import io
import resource
import struct
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupons.settings import Settings, SettingsError
from coupons.sources import PIECE_BYTES, Source, SourceError, SourceLimits, SourceUnavailable, Text

MIB = 1_048_576
CODES = b"".join(b"SPRING-%07d\n" % number for number in range(180_000))  # 2.7 MB
NAME = "codes.csv"


def limits(**others: Any) -> SourceLimits:
    return SourceLimits.from_settings(Settings(_env_file=None, **others))


def text_of(pieces: Iterable[bytes], name: str = NAME, **others: Any) -> Text:
    async def all_pieces() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return Text(Source(name, None, all_pieces()), limits(**others))


async def read(text: Text) -> list[bytes]:
    return [piece async for piece in text]


async def decompress(packed: bytes, **others: Any) -> bytes:
    return b"".join(await read(text_of([packed], **others)))


def make_zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def bomb() -> bytes:
    """A gzip of 1 MB that decompresses to 1 GiB of zeros."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    mebibyte = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)  # can be repeated any number of times
    return gzip.compress(b"")[:10] + mebibyte * 1_024 + b"\x03\x00" + bytes(8)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


PLAIN_PIECES = [CODES[start : start + PIECE_BYTES] for start in range(0, len(CODES), PIECE_BYTES)]
COMPRESSED = {"plain": CODES, "gzip": gzip.compress(CODES), "zip": make_zip((NAME, CODES))}


@pytest.mark.parametrize("compression", COMPRESSED)
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.floats(0, 1), max_size=20))
def test_pieces_do_not_depend_on_compression_or_cuts(compression: str, cuts: list[float]) -> None:
    """A text always has the same chunks of PIECE_BYTES, however the source is compressed and however it arrives."""
    source = COMPRESSED[compression]
    places = sorted({0, len(source), *(round(cut * len(source)) for cut in cuts)})
    text = text_of([source[start:end] for start, end in pairwise(places)])
    assert asyncio.run(read(text)) == PLAIN_PIECES
    assert text.source_bytes == len(source)


@pytest.mark.parametrize("compression", COMPRESSED)
async def test_a_source_may_arrive_byte_by_byte(compression: str) -> None:
    """A source is decompressed even if its first bytes, which identify the compression, arrive one by one."""
    short = {"plain": b"A\nB\n", "gzip": gzip.compress(b"A\nB\n"), "zip": make_zip((NAME, b"A\nB\n"))}[compression]
    assert await read(text_of(bytes([byte]) for byte in short)) == [b"A\nB\n"]


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""], [gzip.compress(b"")], [make_zip((NAME, b""))]])
async def test_an_empty_source_has_no_pieces(pieces: list[bytes]) -> None:
    """An empty source has no chunks, whether it is compressed or not."""
    assert await read(text_of(pieces)) == []


@pytest.mark.parametrize("packed", [b"A", b"\x1f", b"PK", b"\x1f\x8bA\n", b"PK\n"])
async def test_short_and_unusual_texts_are_unchanged(packed: bytes) -> None:
    """A short text is unchanged even if it begins like a compressed file."""
    assert await decompress(packed) == packed


async def test_progress_counts_bytes_of_the_source() -> None:
    """`source_bytes` rises with each chunk, in compressed bytes, up to the size of the source."""
    for source in COMPRESSED.values():
        text = text_of([source[start : start + 50_000] for start in range(0, len(source), 50_000)])
        seen = [text.source_bytes async for _ in text]
        assert seen == sorted(seen)
        assert 0 < seen[0] <= seen[-1] <= text.source_bytes == len(source)


async def test_a_gzip_may_have_several_members() -> None:
    """The output of `cat a.gz b.gz` is read as one text, also with zeros between and after the members."""
    one, two = gzip.compress(b"A\n"), gzip.compress(b"B\n")
    assert await decompress(one + two) == b"A\nB\n"
    assert await decompress(one + bytes(512) + two + bytes(100_000)) == b"A\nB\n"


@pytest.mark.parametrize("lost", [1, 4, 8, 9, 1_000])
async def test_a_truncated_gzip_is_rejected(lost: int) -> None:
    """A truncated gzip is rejected even if only its checksum is missing."""
    with pytest.raises(SourceError, match=r"codes\.csv is truncated"):
        await decompress(COMPRESSED["gzip"][:-lost])


async def test_a_truncated_second_member_is_rejected() -> None:
    """A gzip whose second member is truncated is rejected, although its first member is complete."""
    with pytest.raises(SourceError, match="is truncated"):
        await decompress(gzip.compress(b"A\n") + gzip.compress(b"B\n")[:5])


@pytest.mark.parametrize("place", [-8, -4, len(COMPRESSED["gzip"]) // 2])
async def test_a_damaged_gzip_is_rejected(place: int) -> None:
    """A gzip with a wrong checksum, length or damaged data is rejected."""
    damaged = bytearray(COMPRESSED["gzip"])
    damaged[place] ^= 0xFF
    with pytest.raises(SourceError, match=r"codes\.csv is damaged"):
        await decompress(bytes(damaged))


async def test_only_gzip_may_follow_gzip() -> None:
    """Other data after a gzip member is an error and is not ignored."""
    with pytest.raises(SourceError, match="is damaged"):
        await decompress(gzip.compress(b"A\n") + b"B\n")


async def test_only_one_layer_is_decompressed() -> None:
    """A file that was compressed twice is decompressed once. The readers then report that it is not text."""
    inner = gzip.compress(b"A\n")
    assert await decompress(gzip.compress(inner)) == inner
    assert await decompress(make_zip(("a.gz", inner))) == inner


async def test_a_gzip_bomb_is_stopped_early() -> None:
    """A gzip of 1 MB with 1 GiB of zeros is rejected at the second chunk, with little memory."""
    packed = bomb()
    assert len(packed) < 1.1 * MIB
    text = text_of([packed])
    with peak_memory() as peak, pytest.raises(SourceError, match=r"more than 200 times its size.*IMPORT_MAX_RATIO"):
        await read(text)
    assert peak[0] < 8 * MIB


async def test_a_zip_bomb_is_not_opened() -> None:
    """A zip whose declared decompressed size is too large is rejected before it is decompressed."""
    with peak_memory() as peak:
        packed = make_zip((NAME, bytes(64 * MIB)))
    with peak_memory() as peak, pytest.raises(SourceError, match="more than 200 times its size"):
        await decompress(packed)
    assert peak[0] < 2 * MIB


async def test_a_zip_with_a_wrong_size_is_damaged() -> None:
    """A zip is decompressed only up to its declared size. If that is too small, the checksum is wrong."""
    packed = make_zip((NAME, bytes(64 * MIB))).replace(struct.pack("<L", 64 * MIB), struct.pack("<L", 5_000))
    with peak_memory() as peak, pytest.raises(SourceError, match=r"codes\.csv is damaged"):
        await decompress(packed)
    assert peak[0] < 4 * MIB


async def test_a_highly_compressible_text_is_not_a_bomb() -> None:
    """The limit of the compression ratio applies only after the first MiB, and it is a setting."""
    assert await decompress(gzip.compress(bytes(MIB))) == bytes(MIB)
    assert await decompress(gzip.compress(bytes(3 * MIB)), import_max_ratio=2_000) == bytes(3 * MIB)
    with pytest.raises(SourceError, match="more than 200 times"):
        await decompress(gzip.compress(bytes(MIB + 1)))


@pytest.mark.parametrize("compression", ["gzip", "zip"])
async def test_the_decompressed_size_is_limited(compression: str) -> None:
    """The size limit for a source applies to its decompressed text too."""
    assert await decompress(COMPRESSED[compression], import_max_bytes=len(CODES)) == CODES
    with pytest.raises(SourceError, match=r"limit of 2699999 bytes when decompressed.*COUPONS_IMPORT_MAX_BYTES"):
        await decompress(COMPRESSED[compression], import_max_bytes=len(CODES) - 1)


@pytest.mark.parametrize("compression", COMPRESSED)
async def test_the_received_size_is_limited(compression: str) -> None:
    """The received bytes are limited, whatever size is declared, and a zip is not spooled beyond the limit."""
    source = COMPRESSED[compression]
    pieces = 0

    def endless() -> Iterator[bytes]:
        nonlocal pieces
        while True:
            pieces += 1
            yield source

    with pytest.raises(SourceError, match="COUPONS_IMPORT_MAX_BYTES"):
        await read(text_of(endless(), import_max_bytes=10_000_000))
    assert pieces <= 10_000_000 // len(source) + 1


async def test_folders_and_macos_metadata_in_a_zip_are_ignored() -> None:
    """Folders in a zip are ignored, and so is the second, hidden file in a zip that was created on a Mac."""
    packed = make_zip(("export/", b""), ("export/codes.csv", b"A\n"), ("__MACOSX/export/._codes.csv", b"\0\5\26\7"))
    text = text_of([packed], "export.zip")
    assert await read(text) == [b"A\n"]
    assert text.name == NAME


async def test_the_name_of_a_text_has_no_gz_suffix() -> None:
    """The name of a decompressed text lacks the suffix .gz, because readers recognize a CSV file by its name."""
    assert text_of([], "codes.csv.gz").name == NAME
    assert text_of([], "codes.csv").name == NAME


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([], "export.zip is a zip with no files: it must contain exactly one"),
        (["a/"], "export.zip is a zip with no files"),
        (["a.csv", "b.csv", "c.csv"], "export.zip is a zip with 3 files: it must contain exactly one"),
        (
            ["[Content_Types].xml", "xl/workbook.xml", "xl/styles.xml"],
            "export.zip is damaged or truncated (invalid spreadsheet data); send it again",
        ),
        (
            ["[Content_Types].xml", "word/document.xml"],
            "export.zip looks like a Word document, not a list of codes or recipients: save the table as .xlsx",
        ),
        (
            ["mimetype", "content.xml"],
            "export.zip looks like an OpenDocument file that is not a spreadsheet, not a list of",
        ),
    ],
)
async def test_a_zip_must_contain_one_file(members: list[str], reason: str) -> None:
    """A zip with several files or none is rejected, and other documents are identified in the error."""
    packed = make_zip(*((name, b"") for name in members))
    with pytest.raises(SourceError) as caught:
        await read(text_of([packed], "export.zip"))
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    "clutter",
    [
        "export/.DS_Store",
        "__MACOSX/export/._codes.csv",
        "export/__MACOSX/x",
        "._codes.csv",
        "Thumbs.db",
        "a/Desktop.ini",
    ],
)
async def test_files_that_a_system_adds_to_a_zip_are_ignored(clutter: str) -> None:
    """A zip with one file and the files that macOS and Windows add to folders is read as the one file."""
    text = text_of([make_zip((clutter, b"\0"), ("export/codes.csv", b"A\n"))], "export.zip")
    assert (await read(text), text.name) == ([b"A\n"], "codes.csv")


async def test_a_password_protected_zip_is_rejected() -> None:
    """The error for a zip with a password says so, and does not call the zip damaged."""
    packed = bytearray(make_zip((NAME, b"A\n")))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(signature) + flags] |= 1
    with pytest.raises(SourceError, match="is a password-protected zip: remove the password"):
        await decompress(bytes(packed))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_a_zip_must_use_a_standard_method(method: int) -> None:
    """A zip with another compression method is rejected.

    It would be decompressed without a limit, and a few bytes of bzip2 can contain gigabytes.
    """
    with pytest.raises(SourceError, match="unsupported compression method"):
        await decompress(make_zip((NAME, CODES), method=method))


async def test_an_uncompressed_zip_is_read() -> None:
    """A zip whose file is stored without compression is read."""
    assert await decompress(make_zip((NAME, CODES), method=zipfile.ZIP_STORED)) == CODES


@pytest.mark.parametrize("kept", [4, 30, 100, -1, -22, -60])
async def test_a_truncated_zip_is_rejected(kept: int) -> None:
    """A zip that lacks its directory or a part of it is rejected."""
    with pytest.raises(SourceError, match=r"codes\.csv is damaged or truncated"):
        await decompress(COMPRESSED["zip"][:kept])


async def test_a_damaged_zip_is_rejected() -> None:
    """A zip whose file has a wrong checksum is rejected."""
    damaged = bytearray(make_zip((NAME, b"SPRING-1\n"), method=zipfile.ZIP_STORED))
    damaged[damaged.index(b"SPRING-1")] ^= 1
    with pytest.raises(SourceError, match="is damaged"):
        await decompress(bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 127), byte=st.integers(0, 255))
def test_any_damage_to_a_zip_is_detected(place: int, byte: int) -> None:
    """With one wrong byte anywhere in a zip, the text is correct or SourceError is raised, never another error."""
    damaged = bytearray(make_zip((NAME, b"SPRING-1\nSPRING-2\n")))
    damaged[place % len(damaged)] = byte
    try:
        assert asyncio.run(decompress(bytes(damaged))) in (b"SPRING-1\nSPRING-2\n", bytes(damaged))
    except SourceError as error:
        assert "SPRING" not in str(error)


async def test_the_directory_size_of_a_zip_is_not_trusted() -> None:
    """A zip with a huge directory (here 100 MB of zeros) is rejected, because zipfile would read it all into memory."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 100_000_000, 4, 0)
    pieces = [b"PK\x03\x04", *[bytes(MIB)] * 100, end]
    with peak_memory() as peak, pytest.raises(SourceError, match="is damaged"):
        await read(text_of(pieces))
    assert peak[0] < 4 * MIB


async def test_a_full_disk_is_unavailable() -> None:
    """A full disk makes the source unavailable, so that the import is retried: the file is not at fault."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(SourceUnavailable, match=r"codes\.csv cannot be unpacked in TMPDIR: File too large"):
            await read(text_of([b"PK\x03\x04", *[bytes(MIB)] * 3]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_missing_temporary_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no temporary folder is writable, as in a read-only container, the error mentions the setting TMPDIR."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(SourceError, match=r"codes\.csv must be unpacked, and there is no writable folder .*TMPDIR"):
        await decompress(COMPRESSED["zip"])


def test_limits_come_from_settings() -> None:
    """Limits are read from the settings, in which hosts and buckets are separated by spaces or commas."""
    made = limits(
        import_folder="/srv/import", import_hosts="Shop.example, files.example:8443\n[::1]:443", import_buckets="a,b c"
    )
    assert made == SourceLimits(
        folder=Path("/srv/import"),
        hosts=frozenset({"shop.example", "files.example:8443", "[::1]:443"}),
        private_hosts=False,
        buckets=frozenset("abc"),
        max_bytes=2_000_000_000,
        max_ratio=200,
    )
    assert limits().hosts == limits().buckets == frozenset()


@pytest.mark.parametrize(
    "host", ["https://shop.example", "shop.example/codes", "*.shop.example", "user:pw@shop.example"]
)
def test_an_invalid_host_is_a_settings_error(host: str) -> None:
    """An invalid host in the settings is an error, because it would silently match no host."""
    with pytest.raises(SettingsError, match="COUPONS_IMPORT_HOSTS") as caught:
        limits(import_hosts=host)
    assert host not in str(caught.value)
