"""Imports: each line explained, whole chunks or nothing, the same once more changes nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest

from coupons.codes import Checked, Reason
from coupons.commands import Format, ImportCoupons
from coupons.database import Connection, Pool, pooled
from coupons.errors import Refused
from coupons.settings import Settings
from coupons.store import imports, lists
from coupons.store.imports import Import, Job
from tests.stock import add_codes, add_group, add_list, prepare, save_message, start
from workers.importer import Importer, confined
from workers.loops import AT_ONCE, Signals


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with pooled(database_url, size=4) as pool:
        yield pool


def worker(pool: Pool, *, folder: Path | None = None) -> Importer:
    settings = Settings(import_folder=folder, lease_seconds=2, heartbeat_seconds=1)
    return Importer(pool=pool, signals=Signals(("import",)), settings=settings, owner="test")


async def send(
    connection: Connection,
    text: str | bytes,
    *,
    mode: Literal["add", "replace", "delete"] = "add",
    piece: int = 1 << 20,
) -> UUID:
    """Upload a file in small pieces, and note its import into the list `a`."""
    data = text.encode() if isinstance(text, str) else text

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(data), piece):
            yield data[begin : begin + piece]

    upload = await imports.upload(connection, "codes.txt", pieces())
    command = ImportCoupons(list="a", mode=mode, source=f"upload:{upload.id}", format=Format(kind="txt"))
    await imports.create(connection, command)
    return command.id


async def look(connection: Connection, import_id: UUID) -> Import:
    found = await imports.find(connection, import_id)
    assert found
    return found


async def reasons(connection: Connection, import_id: UUID) -> list[tuple[int, Reason]]:
    return [(each.line, each.reason) for each in await imports.rejections(connection, import_id)]


async def test_every_line_is_taken_or_explained(connection: Connection, pool: Pool) -> None:
    """Added, blank and rejected lines add up; each rejected one has its line and reason."""
    await add_list(connection, "a")
    await add_codes(connection, "a", ["OLD"])
    import_id = await send(connection, "NEW\n\nOLD\nNEW\nhttps://shop.example/x\n1,2E+11\nNEXT")
    assert await worker(pool).step() == AT_ONCE
    done = await look(connection, import_id)
    assert (done.state, done.lines, done.added, done.blank, done.rejected) == ("finished", 7, 2, 1, 4)
    assert await reasons(connection, import_id) == [
        (3, Reason.IN_LIST), (4, Reason.DUPLICATE), (5, Reason.URL), (6, Reason.EXCEL),
    ]  # fmt: skip
    (found,) = await lists.named(connection, "a")
    assert (found.total, found.available) == (3, 3)


@pytest.mark.parametrize("survived", range(5))
async def test_an_import_goes_on_where_its_worker_died(
    connection: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Whichever chunk was the last one, the report is that of an import that was never stopped."""
    await add_list(connection, "a")
    codes = [f"CODE-{number:04}" for number in range(100)]
    import_id = await send(connection, "\n".join([*codes, codes[7], "x" * 201, ""]), piece=250)
    apply, applied = imports.apply, 0

    async def dies(connection: Connection, job: Job, checked: Checked, *, position: int, lease_seconds: float) -> None:
        nonlocal applied
        if applied == survived:
            raise KeyboardInterrupt
        applied += 1
        await apply(connection, job, checked, position=position, lease_seconds=lease_seconds)

    monkeypatch.setattr(imports, "apply", dies)
    with pytest.raises(KeyboardInterrupt):
        await worker(pool).step()
    monkeypatch.setattr(imports, "apply", apply)
    await connection.execute("UPDATE import_job SET lease_until = now() - interval '1 s'")
    assert await worker(pool).step() == AT_ONCE
    done = await look(connection, import_id)
    assert (done.state, done.lines, done.added, done.rejected) == ("finished", 102, 100, 2)
    assert await reasons(connection, import_id) == [(101, Reason.DUPLICATE), (102, Reason.TOO_LONG)]
    assert await worker(pool).step() is None


async def test_replacing_leaves_what_belongs_to_somebody(connection: Connection, pool: Pool) -> None:
    """Free, unpromised codes go; the file's codes come; those in both are kept."""
    await add_list(connection, "a", 10)
    await add_group(connection, "g", 4)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)  # 4 of the 10 are promised
    import_id = await send(connection, "A-000000009\nNEW-1\nNEW-2\n", mode="replace")
    assert await worker(pool).step() == AT_ONCE
    done = await look(connection, import_id)
    assert (done.added, done.kept, done.removed, done.rejected) == (2, 1, 8, 0)
    (found,) = await lists.named(connection, "a")
    assert (found.total, found.available, found.promised) == (4, 0, 4)


async def test_deleting_takes_free_codes_only(connection: Connection, pool: Pool) -> None:
    """What is not in the list, or promised to a sendout, is explained."""
    await add_list(connection, "a", 5)
    await add_group(connection, "g", 3)
    await save_message(connection, "m", "a")
    await start(connection, "m", "g")
    await prepare(connection)
    import_id = await send(connection, "".join(f"A-{number:09}\n" for number in range(5)) + "NOWHERE\n", mode="delete")
    assert await worker(pool).step() == AT_ONCE
    done = await look(connection, import_id)
    assert (done.removed, done.rejected) == (2, 4)
    assert await reasons(connection, import_id) == [
        (3, Reason.HELD), (4, Reason.HELD), (5, Reason.HELD), (6, Reason.NOT_IN_LIST),
    ]  # fmt: skip


async def test_imports_into_one_list_take_their_turns(connection: Connection, pool: Pool) -> None:
    """The second of two that replace waits for the first, or each would remove what the other brought."""
    await add_list(connection, "a")
    first = await send(connection, "A1\nA2\n", mode="replace")
    second = await send(connection, "B1\nB2\n", mode="replace")
    held = await imports.claim(connection, owner="test", lease_seconds=60)
    assert held
    assert held.id == first
    assert await worker(pool).step() is None
    await imports.hand_back(connection, held)
    assert await worker(pool).step() == AT_ONCE
    assert await worker(pool).step() == AT_ONCE
    done = await look(connection, second)
    assert (done.added, done.removed) == (2, 2)
    assert await connection.fetchval("SELECT array_agg(code ORDER BY code) FROM coupon") == ["B1", "B2"]


async def test_a_file_that_cannot_be_read_fails_the_import(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """Trouble with a file does not pass by itself, as trouble with the database does."""
    await add_list(connection, "a")
    command = ImportCoupons(list="a", source=(tmp_path / "gone.txt").as_uri())
    await imports.create(connection, command)
    assert await worker(pool, folder=tmp_path).step() == AT_ONCE
    assert (await look(connection, command.id)).state == "failed"


async def test_a_file_that_is_no_text_fails_the_import(connection: Connection, pool: Pool) -> None:
    """One line says what it is; nothing was added."""
    await add_list(connection, "a")
    import_id = await send(connection, b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert await worker(pool).step() == AT_ONCE
    done = await look(connection, import_id)
    assert (done.state, done.added) == ("failed", 0)
    assert "picture" in (done.reason or "")


async def test_an_upload_is_gone_with_its_import(connection: Connection, pool: Pool) -> None:
    """Codes don't lie about twice."""
    await add_list(connection, "a")
    await send(connection, "A\n")
    await worker(pool).step()
    assert await connection.fetchval("SELECT count(*) FROM upload_chunk") == 0


async def test_a_file_source_is_read_from_its_folder_only(connection: Connection, pool: Pool, tmp_path: Path) -> None:
    """`file:` names files under one folder, and nothing outside, by whatever path."""
    await add_list(connection, "a")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "spring.txt").write_text("A\nB\n")
    (tmp_path / "secret.txt").write_text("C\n")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    command = ImportCoupons(list="a", source=(folder / "spring.txt").as_uri())
    await imports.create(connection, command)
    assert await worker(pool, folder=folder).step() == AT_ONCE
    assert (await look(connection, command.id)).added == 2
    for path in ("in/../secret.txt", "in/link.txt", "secret.txt", "in/%2e%2e/secret.txt"):
        with pytest.raises(Refused, match="is not in"):
            confined(f"file://{tmp_path}/{path}", folder)
    with pytest.raises(Refused, match="COUPONS_IMPORT_FOLDER"):
        confined("file:///etc/passwd", None)
    with pytest.raises(Refused, match="are not offered"):
        confined("https://example.org/codes.txt", folder)
