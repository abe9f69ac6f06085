"""Recurring imports on the command line, and with workers that are killed."""

import pytest

from tests.acceptance.processes import FAILED
from tests.acceptance.system import Shop
from tests.waiting import eventually

CRON = ("--cron", "0 3 * * *", "--zone", "Europe/Berlin")
WRONG_USAGE = 2


def results(shop: Shop, name: str) -> list[str]:
    return [run["result"] for run in shop.coupons("import", "schedule", name, "--json").json["runs"]]


def test_a_recurring_import_on_the_command_line(shop: Shop) -> None:
    """It is created, run, shown, paused, resumed and deleted."""
    shop.coupons("list", "create", "nightly")
    codes = shop.file("nightly.txt", "N-1\nN-2\n")
    missing = codes.with_name("missing.txt").as_uri()
    created = shop.coupons("import", "schedule", "every-night", *CRON, "--source", missing, "--list", "nightly").out
    assert "into list nightly" in created
    assert "0 3 * * * (Europe/Berlin), next: 20" in created
    with shop.worker(import_folder=codes.parent, sweep_seconds=1):
        shop.coupons("import", "schedule", "every-night", "--now")
        eventually(lambda: any("failed" in each for each in results(shop, "every-night")), "the failed run")
        assert "missing.txt" in results(shop, "every-night")[0]
        doctor = shop.coupons("doctor", code=FAILED)
        assert "recurring import every-night: last run failed: " in doctor.out
        changed = shop.coupons(
            "import", "schedule", "every-night", "--source", codes.as_uri(), "--column", "1", "--now"
        )
        assert "0 3 * * * (Europe/Berlin), next: 20" in changed.out  # what is not given stays
        assert "options: column 1" in changed.out
        eventually(lambda: results(shop, "every-night")[0].startswith("finished: 2 lines, 2 added"), "the import")
    listed = shop.coupons("import", "schedules").out
    assert "every-night" in listed
    assert "finished: 2 lines, 2 added" in listed
    assert "paused since" in shop.coupons("import", "schedule", "every-night", "--pause").out
    assert "recurring import every-night: paused since" in shop.coupons("doctor", code=FAILED).out  # no worker runs
    assert "next: 20" in shop.coupons("import", "schedule", "every-night", "--resume", "--now").out
    assert "pass --yes" in shop.coupons("import", "unschedule", "every-night", code=WRONG_USAGE).err
    assert shop.coupons("import", "unschedule", "every-night", "--yes").out == "recurring import every-night deleted\n"
    assert "there is no recurring import" in shop.coupons("import", "unschedule", "every-night", code=FAILED).err
    assert "no recurring imports yet" in shop.coupons("import", "schedules").err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--cron", "0 3 * * *", "--list", "a"), "there is no recurring import x yet: a new one needs --source"),
        (("--list", "a"), "a new one needs --cron, --source"),
        ((*CRON, "--source", "file:///x"), "a new one needs --list or --group"),
        (("--list", "a", "--group", "b"), "exactly one of --list and --group"),
        (("--mode", "undo"), "'undo' is not one of 'add', 'replace', 'delete'"),
        (("--pause", "--now"), "--pause and --now cannot be combined"),
    ],
)
def test_wrong_usage_is_explained(open_shop: Shop, options: tuple[str, ...], reason: str) -> None:
    """One line names the option."""
    assert reason in open_shop.coupons("import", "schedule", "x", *options, code=WRONG_USAGE).err


def test_a_source_that_the_settings_do_not_allow_is_refused(open_shop: Shop) -> None:
    """The folder and the hosts of this machine are compared when it is saved; without them, a warning says so."""
    shop, base = open_shop, ("import", "schedule", "x", *CRON, "--group", "a", "--source")
    known = {"import_hosts": "shop.example", "import_folder": "/srv/imports"}
    for source, reason in (
        ("https://other.example/codes.csv", "other.example:443 is not an allowed host (COUPONS_IMPORT_HOSTS)"),
        ("file:///etc/passwd", "passwd is not in /srv/imports, the folder for file: sources"),
    ):
        assert reason in shop.coupons(*base, source, code=FAILED, **known).err
    assert "COUPONS_IMPORT_HOSTS is not set here" in shop.coupons(*base, "https://other.example/codes.csv").err


@pytest.mark.parametrize("failpoint", ["schedule.created", "schedule.committed"])
def test_workers_that_die_neither_lose_nor_repeat_an_occurrence(shop: Shop, failpoint: str) -> None:
    """Two workers that sweep at the same time are killed while they run the schedule: exactly one import is created."""
    shop.coupons("list", "create", "nightly")
    codes = shop.file("nightly.txt", "N-1\nN-2\n")
    known: dict[str, object] = {"import_folder": codes.parent, "sweep_seconds": 1}
    mortal = {**known, "failpoints": f"{failpoint}=kill"}
    with shop.worker("import", **mortal) as one, shop.worker("import", **mortal) as two:  # type: ignore[arg-type]
        shop.coupons("import", "schedule", "nightly", *CRON, "--source", codes.as_uri(), "--list", "nightly", "--now")
        eventually(lambda: one.is_dead or two.is_dead, "the death of a worker")
    with shop.worker("import", **known), shop.worker("import", **known):  # type: ignore[arg-type]
        eventually(lambda: results(shop, "nightly") == ["finished: 2 lines, 2 added"], "the import")
    assert len(shop.rows("SELECT id FROM import_job")) == 1
