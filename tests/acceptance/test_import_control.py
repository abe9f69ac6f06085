"""Progress and cancellation of a large import."""

import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import DONE, FAILED, STILL_RUNNING
from tests.acceptance.system import Shop, addresses
from tests.waiting import eventually

LINES = 200_000
LONGEST_PAUSE_SECONDS = 2.0
"""The progress is published every second; the machine may be busy."""
RECIPIENTS = 600_000
"""A file of 20 MB, which an import reads in two chunks."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a file that an import with mode replace reads in three chunks."""
    file = tmp_path_factory.mktemp("large") / "large.txt"
    file.write_text("".join(f"LARGE{number:012}\n" for number in range(LINES)))
    return file


def test_a_terminal_shows_bytes_lines_and_rate(open_shop: Shop, large: Path) -> None:
    """One progress bar is shown during the upload, another one during the import."""
    open_shop.coupons("list", "create", "seen")
    result = open_shop.on_terminal("import", large, "--list", "seen", "--mode", "replace", "--wait", only_stderr=True)
    assert result.code == DONE
    assert "uploading" in result.err
    assert "3.6 of 3.6 MB" in result.err
    assert "200,000 lines" in result.err
    assert " lines/s" in result.err
    assert f"{LINES:,} added" in result.out


def test_the_progress_moves_every_second(open_shop: Shop, tmp_path: Path) -> None:
    """A chunk of 700,000 lines is committed at once. In the meantime, the bytes that are read or imported increase."""
    file = tmp_path / "moving.txt"
    file.write_text("".join(f"MOVING{number:09}\n" for number in range(700_000)))
    open_shop.coupons("list", "create", "moving")
    import_id = open_shop.coupons("import", file, "--list", "moving").out.strip()
    row = "SELECT state, done_bytes, seen_bytes, position, now() AS at FROM import_job WHERE id = $1"
    looks: list[dict[str, Any]] = []
    while not looks or looks[-1]["state"] != "finished":
        looks += open_shop.rows(row, import_id)
    running = [look for look in looks if look["state"] == "running"]
    moves = [later for earlier, later in pairwise(running) if later["done_bytes"] > earlier["done_bytes"]]
    ends = [running[0]["at"], *(look["at"] for look in moves), running[-1]["at"]]
    assert max((later - earlier).total_seconds() for earlier, later in pairwise(ends)) < LONGEST_PAUSE_SECONDS
    assert len([look for look in moves if look["position"] == 0]) > 1
    assert moves[-1]["seen_bytes"] == file.stat().st_size


def test_a_replace_shows_what_it_removes(shop: Shop) -> None:
    """Once the file is imported, the phase is removing, with a count of its own: on the terminal and in JSON."""
    shop.has("removing", "removing", addresses(1), {"removing": [f"OLD-{number:09}" for number in range(50_000)]})
    with shop.worker(failpoints="import.removing=stop") as worker:
        file = shop.file("one.txt", "OLD-000000001\n")
        import_id = shop.coupons("import", file, "--list", "removing", "--mode", "replace").out.strip()
        eventually(lambda: shop.rows("SELECT FROM import_job WHERE id = $1 AND removed > 0", import_id), "a removal")
        found = shop.coupons("show", import_id, "--json").json
        shown = shop.coupons("show", import_id).out
        waiting = shop.coupons("show", import_id, "--wait", "--timeout", "1s", code=STILL_RUNNING)
        os.kill(worker.pid, signal.SIGCONT)
        done = shop.coupons("show", import_id, "--wait").out
    assert (found["phase"], found["removed"], found["to_remove"]) == ("removing", 20_000, 49_999)
    assert "  20,000 of 49,999 codes removed, " in shown
    assert "removing" in shown
    assert "the job continues" in waiting.err
    assert "1 line, 1 unchanged, 0 rejected\n  removed: 49,999 codes not in the file\n" in done


def test_an_import_can_be_cancelled(shop: Shop, large: Path) -> None:
    """The import keeps and counts its committed chunks and imports no other. Its worker is stopped in the meantime."""
    with shop.worker(failpoints="import.committed=stop") as worker:
        shop.coupons("list", "create", "stopped")
        import_id = shop.coupons("import", large, "--list", "stopped", "--mode", "replace").out.strip()
        eventually(lambda: shop.rows("SELECT FROM import_job WHERE id = $1 AND added > 0", import_id), "a chunk")
        shown = shop.coupons("cancel", import_id).out
        os.kill(worker.pid, signal.SIGCONT)
    assert "cancelled" in shown
    added = shop.rows("SELECT added FROM import_job WHERE id = $1", import_id)[0]["added"]
    assert f"{added:,} added" in shown
    assert 0 < added < LINES
    assert shop.get_list("stopped").total == added
    assert "cancelled by an operator" in shop.coupons("show", import_id).out
    assert "already cancelled" in shop.coupons("cancel", import_id, code=1).err


def test_ctrl_c_leaves_an_import_running_and_cancel_keeps_its_chunks(shop: Shop, tmp_path: Path) -> None:
    """Ctrl-C ends only the waiting command. `cancel` ends the import, and its result counts every committed chunk."""
    file = tmp_path / "people.csv"
    file.write_text("email;first_name\n" + "".join(f"person{n:07}@example.org;Ada\n" for n in range(RECIPIENTS)))
    committed = "SELECT id FROM import_job WHERE group_id IS NOT NULL AND added > 0"
    with shop.worker(failpoints="import.committed=stop") as worker:
        arguments = ("group", "import", file, "--group", "people", "--wait")
        result = shop.interrupted(*arguments, when=lambda: shop.rows(committed), what="a chunk")
        assert result.code == FAILED
        assert result.err.endswith("coupons: aborted; work already queued continues in the workers\n")
        (job,) = shop.rows(committed)
        assert shop.state(job["id"]) == "running"
        shown = shop.coupons("cancel", job["id"]).out
        os.kill(worker.pid, signal.SIGCONT)
    (people,) = shop.coupons("group", "ls", "--json").json
    assert f"{people['recipients']:,} added" in shown
    assert 0 < people["recipients"] < RECIPIENTS
