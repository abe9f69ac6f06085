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
from coupons.sources import PIECE_BYTES, Rules, Source, SourceError, SourceInterrupted, Text

MIB = 1_048_576
CODES = b"".join(b"SPRING-%07d\n" % number for number in range(180_000))  # 2.7 MB
NAME = "codes.csv"


def rules(**others: Any) -> Rules:
    return Rules.of(Settings(_env_file=None, **others))


def text_of(pieces: Iterable[bytes], name: str = NAME, **others: Any) -> Text:
    async def all_pieces() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return Text(Source(name, None, all_pieces()), rules(**others))


async def read(text: Text) -> list[bytes]:
    return [piece async for piece in text]


async def unpacked(packed: bytes, **others: Any) -> bytes:
    return b"".join(await read(text_of([packed], **others)))


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def bomb() -> bytes:
    """A gzip of 1 MB that unpacks to 1 GiB of zeros."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    mebibyte = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)  # may stand any number of times in a row
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
PACKED = {"plain": CODES, "gzip": gzip.compress(CODES), "zip": zipped((NAME, CODES))}


@pytest.mark.parametrize("packing", PACKED)
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.floats(0, 1), max_size=20))
def test_pieces_are_the_same_however_the_bytes_come_in(packing: str, cuts: list[float]) -> None:
    """Packed or not and cut anywhere, a text comes in the same pieces of PIECE_BYTES."""
    source = PACKED[packing]
    places = sorted({0, len(source), *(round(cut * len(source)) for cut in cuts)})
    text = text_of([source[start:end] for start, end in pairwise(places)])
    assert asyncio.run(read(text)) == PLAIN_PIECES
    assert text.read == len(source)


@pytest.mark.parametrize("packing", PACKED)
async def test_single_bytes_are_a_source_too(packing: str) -> None:
    """The head that tells how a source is packed may come byte by byte."""
    short = {"plain": b"A\nB\n", "gzip": gzip.compress(b"A\nB\n"), "zip": zipped((NAME, b"A\nB\n"))}[packing]
    assert await read(text_of(bytes([byte]) for byte in short)) == [b"A\nB\n"]


@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""], [gzip.compress(b"")], [zipped((NAME, b""))]])
async def test_an_empty_source_has_no_pieces(pieces: list[bytes]) -> None:
    """Nothing comes of nothing, packed or not."""
    assert await read(text_of(pieces)) == []


@pytest.mark.parametrize("packed", [b"A", b"\x1f", b"PK", b"\x1f\x8bA\n", b"PK\n"])
async def test_short_and_odd_texts_are_left_as_they_are(packed: bytes) -> None:
    """What only begins like a packed file is a text."""
    assert await unpacked(packed) == packed


async def test_progress_counts_bytes_of_the_source() -> None:
    """`read` rises with each piece, in packed bytes, and ends at the source's size."""
    for source in PACKED.values():
        text = text_of([source[start : start + 50_000] for start in range(0, len(source), 50_000)])
        seen = [text.read async for _ in text]
        assert seen == sorted(seen)
        assert 0 < seen[0] <= seen[-1] <= text.read == len(source)


async def test_members_of_a_gzip_follow_each_other() -> None:
    """`cat a.gz b.gz` is a gzip file, with zeros between and behind them too."""
    one, two = gzip.compress(b"A\n"), gzip.compress(b"B\n")
    assert await unpacked(one + two) == b"A\nB\n"
    assert await unpacked(one + bytes(512) + two + bytes(100_000)) == b"A\nB\n"


@pytest.mark.parametrize("lost", [1, 4, 8, 9, 1_000])
async def test_gzip_that_is_cut_short_is_refused(lost: int) -> None:
    """Even if all its text has come: its checksum has not."""
    with pytest.raises(SourceError, match=r"codes\.csv is cut short"):
        await unpacked(PACKED["gzip"][:-lost])


async def test_second_member_that_is_cut_short_is_refused() -> None:
    """A whole member does not make a whole file."""
    with pytest.raises(SourceError, match="is cut short"):
        await unpacked(gzip.compress(b"A\n") + gzip.compress(b"B\n")[:5])


@pytest.mark.parametrize("place", [-8, -4, len(PACKED["gzip"]) // 2])
async def test_damaged_gzip_is_refused(place: int) -> None:
    """Checksum, length and data are verified."""
    damaged = bytearray(PACKED["gzip"])
    damaged[place] ^= 0xFF
    with pytest.raises(SourceError, match=r"codes\.csv is damaged"):
        await unpacked(bytes(damaged))


async def test_what_follows_a_gzip_must_be_one() -> None:
    """Something else behind a member is damage, not text to pass over."""
    with pytest.raises(SourceError, match="is damaged"):
        await unpacked(gzip.compress(b"A\n") + b"B\n")


async def test_packed_twice_is_unpacked_once() -> None:
    """What is in a gzip is handed on as it is; the readers say that it is no text."""
    inner = gzip.compress(b"A\n")
    assert await unpacked(gzip.compress(inner)) == inner
    assert await unpacked(zipped(("a.gz", inner))) == inner


async def test_gzip_bomb_is_stopped_before_it_goes_off() -> None:
    """1 GiB of zeros in 1 MB costs a few pieces' memory and is refused with the second one."""
    packed = bomb()
    assert len(packed) < 1.1 * MIB
    text = text_of([packed])
    with peak_memory() as peak, pytest.raises(SourceError, match=r"more than 200 times its size.*IMPORT_MAX_RATIO"):
        await read(text)
    assert peak[0] < 8 * MIB


async def test_zip_bomb_is_not_even_opened() -> None:
    """A zip says how much comes of it."""
    with peak_memory() as peak:
        packed = zipped((NAME, bytes(64 * MIB)))
    with peak_memory() as peak, pytest.raises(SourceError, match="more than 200 times its size"):
        await unpacked(packed)
    assert peak[0] < 2 * MIB


async def test_zip_that_lies_about_its_size_is_damaged() -> None:
    """No more is unpacked than it says, and then the checksum does not fit."""
    packed = zipped((NAME, bytes(64 * MIB))).replace(struct.pack("<L", 64 * MIB), struct.pack("<L", 5_000))
    with peak_memory() as peak, pytest.raises(SourceError, match=r"codes\.csv is damaged"):
        await unpacked(packed)
    assert peak[0] < 4 * MIB


async def test_text_that_packs_well_is_no_bomb() -> None:
    """The ratio counts from the second mebibyte on, and what is allowed is a setting."""
    assert await unpacked(gzip.compress(bytes(MIB))) == bytes(MIB)
    assert await unpacked(gzip.compress(bytes(3 * MIB)), import_max_ratio=2_000) == bytes(3 * MIB)
    with pytest.raises(SourceError, match="more than 200 times"):
        await unpacked(gzip.compress(bytes(MIB + 1)))


@pytest.mark.parametrize("packing", ["gzip", "zip"])
async def test_what_is_unpacked_has_a_cap(packing: str) -> None:
    """A source's limit in bytes is that of its text too."""
    assert await unpacked(PACKED[packing], import_max_bytes=len(CODES)) == CODES
    with pytest.raises(SourceError, match=r"more than 2699999 bytes when unpacked.*COUPONS_IMPORT_MAX_BYTES"):
        await unpacked(PACKED[packing], import_max_bytes=len(CODES) - 1)


@pytest.mark.parametrize("packing", PACKED)
async def test_a_source_has_a_cap_whatever_it_says(packing: str) -> None:
    """The bytes that come are counted: no size need be known, or true; and a zip is not spooled beyond."""
    source = PACKED[packing]
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield source

    with pytest.raises(SourceError, match="COUPONS_IMPORT_MAX_BYTES"):
        await read(text_of(endless(), import_max_bytes=10_000_000))
    assert taken <= 10_000_000 // len(source) + 1


async def test_folders_and_a_macs_notes_are_no_files_of_a_zip() -> None:
    """What a Mac packs has a second file that nobody put there."""
    packed = zipped(("export/", b""), ("export/codes.csv", b"A\n"), ("__MACOSX/export/._codes.csv", b"\0\5\26\7"))
    text = text_of([packed], "export.zip")
    assert await read(text) == [b"A\n"]
    assert text.name == NAME


async def test_text_is_called_without_its_packing() -> None:
    """Readers see by a file's name whether it is a CSV."""
    assert text_of([], "codes.csv.gz").name == NAME
    assert text_of([], "codes.csv").name == NAME


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([], "export.zip is a zip with no files: it must hold exactly one"),
        (["a/"], "export.zip is a zip with no files"),
        (["a.csv", "b.csv", "c.csv"], "export.zip is a zip with 3 files: it must hold exactly one"),
        (
            ["[Content_Types].xml", "xl/workbook.xml", "xl/styles.xml"],
            "export.zip is an Excel workbook: save it as CSV",
        ),
        (["[Content_Types].xml", "word/document.xml"], "export.zip is an Office document: save it as CSV"),
        (["mimetype", "META-INF/manifest.xml", "content.xml"], "export.zip is an OpenDocument file: save it as CSV"),
    ],
)
async def test_zip_holds_one_file(members: list[str], reason: str) -> None:
    """Which of several is meant is not guessed, and what an office program made is called by its name."""
    packed = zipped(*((name, b"") for name in members))
    with pytest.raises(SourceError) as told:
        await read(text_of([packed], "export.zip"))
    assert str(told.value).startswith(reason)


async def test_zip_with_a_password_is_refused() -> None:
    """As is said, and not as damage."""
    packed = bytearray(zipped((NAME, b"A\n")))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(signature) + flags] |= 1
    with pytest.raises(SourceError, match="is a zip with a password: pack it without one"):
        await unpacked(bytes(packed))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_zip_is_packed_as_zips_are(method: int) -> None:
    """Other methods would be unpacked without a bound: a few bytes of bzip2 hold gigabytes."""
    with pytest.raises(SourceError, match="pack it as a plain zip, or gzip"):
        await unpacked(zipped((NAME, CODES), method=method))


async def test_stored_zip_is_read() -> None:
    """A zip need not be packed at all."""
    assert await unpacked(zipped((NAME, CODES), method=zipfile.ZIP_STORED)) == CODES


@pytest.mark.parametrize("kept", [4, 30, 100, -1, -22, -60])
async def test_zip_that_is_cut_short_is_refused(kept: int) -> None:
    """Its directory is missing, or part of it."""
    with pytest.raises(SourceError, match=r"codes\.csv is damaged or cut short"):
        await unpacked(PACKED["zip"][:kept])


async def test_damaged_zip_is_refused() -> None:
    """The checksum is compared."""
    damaged = bytearray(zipped((NAME, b"SPRING-1\n"), method=zipfile.ZIP_STORED))
    damaged[damaged.index(b"SPRING-1")] ^= 1
    with pytest.raises(SourceError, match="is damaged"):
        await unpacked(bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 127), byte=st.integers(0, 255))
def test_any_damage_to_a_zip_is_told(place: int, byte: int) -> None:
    """One wrong byte anywhere ends in the right text or in a SourceError, never in another error."""
    damaged = bytearray(zipped((NAME, b"SPRING-1\nSPRING-2\n")))
    damaged[place % len(damaged)] = byte
    try:
        assert asyncio.run(unpacked(bytes(damaged))) in (b"SPRING-1\nSPRING-2\n", bytes(damaged))
    except SourceError as error:
        assert "SPRING" not in str(error)


async def test_zip_directory_is_not_believed() -> None:
    """A directory as large as the zip says it is would be taken in at once: here 100 MB of what is none."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 100_000_000, 4, 0)
    pieces = [b"PK\x03\x04", *[bytes(MIB)] * 100, end]
    with peak_memory() as peak, pytest.raises(SourceError, match="is damaged"):
        await read(text_of(pieces))
    assert peak[0] < 4 * MIB


async def test_no_room_for_a_zip_passes() -> None:
    """A full disk is no fault of the file: it can be tried again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(SourceInterrupted, match=r"codes\.csv cannot be unpacked in TMPDIR: File too large"):
            await read(text_of([b"PK\x03\x04", *[bytes(MIB)] * 3]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_machine_without_a_folder_for_zips_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a read-only container no trying again helps, but a setting does."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(SourceError, match=r"codes\.csv is a zip, and there is no folder to unpack it in: .*TMPDIR"):
        await unpacked(PACKED["zip"])


def test_rules_come_from_settings() -> None:
    """Hosts and buckets are lists, with blanks or commas between."""
    made = rules(
        import_folder="/srv/import", import_hosts="Shop.example, files.example:8443\n[::1]:443", import_buckets="a,b c"
    )
    assert made == Rules(
        folder=Path("/srv/import"),
        hosts=frozenset({"shop.example", "files.example:8443", "[::1]:443"}),
        private_hosts=False,
        buckets=frozenset("abc"),
        max_bytes=2_000_000_000,
        max_ratio=200,
    )
    assert rules().hosts == rules().buckets == frozenset()


@pytest.mark.parametrize(
    "host", ["https://shop.example", "shop.example/codes", "*.shop.example", "user:pw@shop.example"]
)
def test_host_that_is_none_is_a_wrong_setting(host: str) -> None:
    """It would match nothing, and nobody would know why."""
    with pytest.raises(SettingsError, match="COUPONS_IMPORT_HOSTS") as told:
        rules(import_hosts=host)
    assert host not in str(told.value)
