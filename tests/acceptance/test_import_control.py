"""What a person sees and does while a large import runs."""

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.processes import DONE, FAILED
from tests.acceptance.system import Shop
from tests.waiting import eventually

LINES = 200_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 chunks of a replacing import."""
    file = tmp_path_factory.mktemp("large") / "large.txt"
    file.write_text("".join(f"LARGE{number:012}\n" for number in range(LINES)))
    return file


def test_a_terminal_sees_bytes_lines_rate_and_time_left(open_shop: Shop, large: Path) -> None:
    """One bar while the file goes to the workers, one while they import it."""
    open_shop.coupons("list", "create", "seen")
    result = open_shop.on_terminal("import", large, "--list", "seen", "--mode", "replace", "--wait", only_stderr=True)
    assert result.code == DONE
    assert "uploading" in result.err
    assert "3.6 of 3.6 MB" in result.err
    assert "200,000 lines" in result.err
    assert " lines/s" in result.err
    assert f"{LINES:,} added" in result.out


def test_an_import_is_cancelled(shop: Shop, large: Path) -> None:
    """What was committed stays and is counted; nothing comes after it. Its worker stands still meanwhile."""
    with shop.worker(failpoints="import.committed=stop") as worker:
        shop.coupons("list", "create", "stopped")
        import_id = shop.coupons("import", large, "--list", "stopped", "--mode", "replace").out.strip()
        eventually(lambda: shop.rows("SELECT FROM import_job WHERE id = $1 AND added > 0", import_id), "a chunk")
        told = shop.coupons("cancel", import_id).out
        os.kill(worker.pid, signal.SIGCONT)
    assert "cancelled" in told
    added = shop.rows("SELECT added FROM import_job WHERE id = $1", import_id)[0]["added"]
    assert f"{added:,} added" in told
    assert 0 < added < LINES
    assert shop.list_named("stopped").total == added
    assert "cancelled by a person" in shop.coupons("show", import_id).out
    assert "cancelled already" in shop.coupons("cancel", import_id, code=1).err


def test_a_group_is_imported_without_a_worker_and_ctrl_c_keeps_what_was_committed(
    open_shop: Shop, tmp_path: Path
) -> None:
    """The command line is its own worker; ended by its person, it says so, and the import is cancelled."""
    file = tmp_path / "people.csv"
    file.write_text("email;first_name\n" + "".join(f"person{n:07}@example.org;Ada\n" for n in range(900_000)))
    committed = (
        "SELECT FROM import_job j JOIN recipient_group g ON g.id = j.group_id WHERE name = 'people' AND added > 0"
    )
    arguments = ("group", "import", file, "--group", "people")
    result = open_shop.interrupted(*arguments, when=lambda: open_shop.rows(committed), what="a chunk")
    assert (result.code, result.err) == (FAILED, "coupons: cancelled; what was committed until then stays\n")
    (job,) = open_shop.rows("SELECT state, added FROM import_job WHERE group_id IS NOT NULL AND state = 'cancelled'")
    (people,) = [each for each in open_shop.coupons("group", "ls", "--json").json if each["name"] == "people"]
    assert people["recipients"] == job["added"]
    assert 0 < job["added"] < 900_000
