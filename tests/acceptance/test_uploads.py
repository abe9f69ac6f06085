"""Files are uploaded to the workers once or not at all, and Ctrl-C always ends a waiting command."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import COUPONS, DONE, FAILED, SETTINGS
from tests.acceptance.system import Shop, codes
from tests.waiting import eventually

ID = "11111111-2222-4333-8444-555555555555"
NOWHERE = "amqp://127.0.0.1:1/"
END_SECONDS = 2
SILENCE_SECONDS = 1
"""How long the pipe pauses. In this time the worker sweeps several times."""
STAGING = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%staged_code%'
"""


@pytest.fixture
def idle_shop(shop: Shop) -> Shop:
    """Provide a shop with a list and with the queues of a worker that has stopped."""
    with shop.worker("import"):
        shop.coupons("list", "create", "spring-10")
    return shop


def uploads(shop: Shop) -> int:
    return len(shop.rows("SELECT FROM upload"))


@contextmanager
def piping(shop: Shop, folder: Path, *arguments: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `coupons … -`, and let the test write to its stdin."""
    with subprocess.Popen(
        [COUPONS, *arguments],
        env=os.environ | SETTINGS | shop.services.environment() | settings,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: "subprocess.Popen[bytes]", text: str) -> None:
    assert process.stdin
    process.stdin.write(text.encode())
    process.stdin.flush()


# --- the same command twice ------------------------------------------------------------------------------------------


def test_an_id_used_twice_before_a_worker_runs_is_one_import(idle_shop: Shop) -> None:
    """The file is uploaded once. The second command is a duplicate; nothing is rejected or left behind."""
    file = idle_shop.file("spring.txt", "\n".join(codes("SPRING", 1_000)))
    arguments = ("import", file, "--list", "spring-10", "--id", ID)
    assert [idle_shop.coupons(*arguments).out.strip() for _ in range(2)] == [ID, ID]
    assert uploads(idle_shop) == 1
    with idle_shop.worker("import"):
        idle_shop.becomes("finished", ID)
        assert idle_shop.coupons(*arguments).out.strip() == ID
        eventually(
            lambda: idle_shop.rows("SELECT FROM import_job") and not uploads(idle_shop), "an end without uploads"
        )
    assert [(row["id"], row["added"]) for row in idle_shop.rows("SELECT id::text, added FROM import_job")] == [
        (ID, 1_000)
    ]
    assert idle_shop.dead() == []


def test_an_id_belongs_to_one_file(idle_shop: Shop) -> None:
    """Another file with the same id fails before it is uploaded."""
    with idle_shop.worker("import"):
        idle_shop.import_codes("spring-10", ["A1"], "--id", ID)
        error = idle_shop.import_codes("spring-10", ["B2"], "--id", ID, code=FAILED)
    assert error.err == f"coupons: id {ID} belongs to another command\n"
    assert (uploads(idle_shop), idle_shop.dead()) == (0, [])


# --- a failed command leaves nothing behind --------------------------------------------------------------------------


def test_nothing_is_uploaded_for_a_list_that_accepts_nothing(idle_shop: Shop) -> None:
    """No file is uploaded for an archived or an unknown list."""
    file = idle_shop.file("spring.txt", "A1\n")
    idle_shop.coupons("list", "archive", "spring-10")
    for name, reason in (("spring-10", "list spring-10 is archived"), ("autumn", "there is no list autumn")):
        assert reason in idle_shop.coupons("import", file, "--list", name, code=FAILED).err
    assert uploads(idle_shop) == 0


def test_a_command_that_is_not_published_leaves_no_upload(idle_shop: Shop) -> None:
    """The upload is deleted. If the command has an id, the upload is kept, and the repeated command uses it."""
    file = idle_shop.file("spring.txt", "A1\n")
    arguments = ("import", file, "--list", "spring-10")
    assert "broker" in idle_shop.coupons(*arguments, code=FAILED, broker_url=NOWHERE).err
    assert uploads(idle_shop) == 0
    idle_shop.coupons(*arguments, "--id", ID, code=FAILED, broker_url=NOWHERE)
    idle_shop.coupons(*arguments, "--id", ID)
    assert uploads(idle_shop) == 1
    with idle_shop.worker("import"):
        idle_shop.becomes("finished", ID)
    assert (uploads(idle_shop), idle_shop.dead()) == (0, [])


def test_a_file_that_cannot_be_read_is_named(idle_shop: Shop) -> None:
    """The error contains the file's name and the reason from the operating system."""
    for arguments in (
        ("import", "/proc/self/mem", "--list", "spring-10"),
        ("group", "import", "/proc/self/mem", "--group", "g"),
    ):
        assert idle_shop.coupons(*arguments, code=FAILED).err == "coupons: mem cannot be read: Input/output error\n"
        error = idle_shop.coupons(*arguments, "--dry-run", code=FAILED)
        assert error.err == "coupons: mem cannot be read: Input/output error\n"
    assert uploads(idle_shop) == 0


# --- pipes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "begun", "error"),
    [
        (("import", "-", "--list", "spring-10"), "SELECT FROM upload", "aborted; nothing was imported"),
        (
            ("import", "-", "--list", "spring-10", "--dry-run"),
            STAGING,
            "aborted; nothing was imported",
        ),
        (
            ("group", "import", "-", "--group", "people"),
            "SELECT FROM upload",
            "aborted; nothing was imported",
        ),
    ],
)
def test_ctrl_c_ends_a_command_that_waits_for_its_pipe(
    idle_shop: Shop, tmp_path: Path, arguments: tuple[str, ...], begun: str, error: str
) -> None:
    """The command exits immediately and leaves nothing behind."""
    with piping(idle_shop, tmp_path, *arguments) as process:
        say(process, "email\nSPRING-1\n")
        eventually(lambda: idle_shop.rows(begun), "the command to wait for its pipe")
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert process.wait(END_SECONDS) == FAILED
        assert time.monotonic() - asked < END_SECONDS
        assert process.stderr
        assert process.stderr.read().decode() == f"coupons: {error}\n"
    assert uploads(idle_shop) == 0
    assert idle_shop.rows("SELECT FROM import_job WHERE finished_at IS NULL") == []


def test_a_slow_pipe_is_imported_whole(idle_shop: Shop, tmp_path: Path) -> None:
    """The import begins when the pipe ends, however long it pauses. Sweeping workers keep the unfinished upload."""
    with (
        idle_shop.worker("import", sweep_seconds=0.2) as worker,
        piping(idle_shop, tmp_path, "group", "import", "-", "--group", "people", "--wait") as process,
    ):
        say(process, "email\nada@example.org\n")
        eventually(lambda: uploads(idle_shop), "the upload to begin")
        time.sleep(SILENCE_SECONDS)
        assert idle_shop.rows("SELECT FROM import_job") == []
        say(process, "bob@example.org\n")
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == DONE
        assert not worker.is_dead
    assert [row["added"] for row in idle_shop.rows("SELECT added FROM import_job")] == [2]
    assert uploads(idle_shop) == 0
