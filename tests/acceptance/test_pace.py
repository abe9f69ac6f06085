"""Mails leave after the start time, at the requested rate, and within the rate limit that all workers share."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coupons.commands import StartSendout
from producers.local_time import format_time
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

TOLERANCE = timedelta(milliseconds=5)
"""The clocks of the database and of the sink are read at different moments."""


def arrivals(shop: Shop) -> list[datetime]:
    """Return the times at which the sink accepted the mails."""
    lines = shop.services.ledger.read_text().splitlines()
    return [datetime.fromisoformat(json.loads(line)["at"]) for line in lines]


def start_of(shop: Shop, sendout: Any) -> datetime:
    (row,) = shop.rows("SELECT started_at FROM sendout WHERE id = $1::text::uuid", str(sendout))
    found = row["started_at"]
    assert isinstance(found, datetime)
    return found


def test_a_sendout_starts_at_its_start_time(shop: Shop) -> None:
    """The codes are reserved at once, so that a shortage is known early. No mail leaves before the start time."""
    with shop.worker():
        shop.has("spring-voucher", "customers", addresses(10), {"spring-10": codes("SPRING", 10)})
        start_at = datetime.now(UTC) + timedelta(seconds=4)
        later = ("send", "--message", "spring-voucher", "--group", "customers", "--start-at")
        sendout = shop.coupons(*later, start_at.isoformat()).out.strip()
        shop.becomes("sending", sendout)
        assert shop.get_list("spring-10").available == 0
        assert f"starts {format_time(start_at)}" in shop.coupons("show", sendout).out
        tomorrow = (datetime.now() + timedelta(days=1)).isoformat(timespec="minutes")  # noqa: DTZ005 - typed without a zone
        assert shop.coupons(*later, tomorrow, "--wait", "--json", code=4).json["lists"][0]["missing"] == 10
        shop.becomes("finished", sendout)
    assert min(arrivals(shop)) >= start_at - TOLERANCE
    assert_own_codes(shop.mails(sendout), addresses(10), codes("SPRING", 10))


def test_a_start_in_the_past_is_refused_and_now_is_accepted(open_shop: Shop) -> None:
    """The message names the time and --now. A script that runs some minutes late needs no other command."""
    open_shop.has("late", "late", addresses(2), {"late": codes("LATE", 2)})
    sending = ("send", "--message", "late", "--group", "late")
    refused = open_shop.coupons(*sending, "--start-at", "2020-02-29T09:00:00+01:00", code=FAILED)
    assert refused.err == (
        "coupons: the start 2020-02-29T09:00+01:00 is more than 5 minutes in the past: to start now, use --now (in"
        " JSON: no start_at)\n"
    )
    just_now = (datetime.now(UTC) - timedelta(minutes=4)).isoformat()
    assert open_shop.coupons(*sending, "--start-at", just_now, "--wait", "--json").json["sent"] == 2


def test_a_command_that_waited_in_its_queue_is_not_refused(open_shop: Shop) -> None:
    """A worker accepts a start in the past: the command may have been published before it."""
    open_shop.has("waited", "waited", addresses(2), {"waited": codes("WAITED", 2)})
    past = datetime.now(UTC) - timedelta(days=2)
    command = StartSendout(message="waited", group="waited", start_at=past)
    open_shop.publish(command)
    open_shop.becomes("finished", command.id)
    late = ("--id", str(command.id), "--start-at", past.isoformat(), "--wait", "--json")
    again = open_shop.coupons("send", "--message", "waited", "--group", "waited", *late)
    assert again.json["sent"] == 2


@pytest.mark.parametrize(
    ("zone", "start_at", "words"),
    [
        ("Europe/Berlin", "2027-03-28T02:30", "write 2027-03-28T01:59+01:00 or 2027-03-28T03:00+02:00"),
        ("Europe/Berlin", "2027-10-31T02:30", "write 2027-10-31T02:30+02:00 or 2027-10-31T02:30+01:00"),
    ],
)
def test_a_local_time_that_is_not_one_time_is_refused(
    open_shop: Shop, monkeypatch: pytest.MonkeyPatch, zone: str, start_at: str, words: str
) -> None:
    """The message has the valid spellings next to the skipped time, or those of the repeated time."""
    monkeypatch.setenv("TZ", zone)
    refused = open_shop.coupons("send", "--message", "m", "--group", "g", "--start-at", start_at, code=WRONG_USAGE)
    assert words in " ".join(refused.err.split())


def test_an_unknown_zone_is_an_error_of_each_command(open_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of a zone that the C library does not know would be shown and read as UTC."""
    monkeypatch.setenv("TZ", "Mars/Olympus")
    refused = open_shop.coupons("outbox", code=FAILED)
    assert (refused.out, refused.err) == (
        "",
        "coupons: TZ=Mars/Olympus: unknown time zone; write a name such as Europe/Berlin or UTC, or unset TZ\n",
    )


def test_times_are_shown_with_their_zone(open_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """`outbox` shows the zone next to each time."""
    open_shop.has("zoned", "zoned", addresses(1), {"zoned": codes("ZONED", 1)})
    open_shop.send("zoned", "zoned")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (line,) = (line for line in open_shop.coupons("outbox").out.splitlines() if " zoned " in line)
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d JST", line)


def test_a_sendout_keeps_its_rate(shop: Shop) -> None:
    """At ten mails per second, in batches of five, no mail arrives before its batch is due."""
    with shop.worker(batch_size=5), shop.worker(batch_size=5):
        shop.has("spring-voucher", "customers", addresses(20), {"spring-10": codes("SPRING", 20)})
        paced = ("--per-hour", 36_000, "--wait", "--json")
        sendout = shop.coupons("send", "--message", "spring-voucher", "--group", "customers", *paced).json
    started = start_of(shop, sendout["id"])
    for number, at in enumerate(sorted(arrivals(shop))):
        assert at >= started + timedelta(seconds=number // 5 * 0.5) - TOLERANCE
    assert_own_codes(shop.mails(), addresses(20), codes("SPRING", 20))


def test_a_sendout_can_be_spread_over_a_duration(shop: Shop) -> None:
    """120 mails over two hours are 60 per hour, as `show` reports. A cancellation does not wait for the next batch."""
    with shop.worker(sweep_seconds=0.5):
        shop.has("spread", "spread", addresses(120), {"spread": codes("SPREAD", 120)})
        sending = ("send", "--message", "spread", "--group", "spread", "--over", "2h")
        sendout = shop.coupons(*sending).out.strip()
        shop.becomes("sending", sendout)
        assert "at most 60 mails per hour" in shop.coupons("show", sendout).out
        shop.coupons("cancel", sendout)
        over = "SELECT FROM sendout WHERE id = $1::text::uuid AND finished_at IS NOT NULL"
        eventually(lambda: shop.rows(over, sendout), "the last batch to be closed")


def test_all_workers_share_one_rate_limit(shop: Shop) -> None:
    """With COUPONS_MAILS_PER_HOUR=36000 two workers send ten mails per second together, and ten more at the start."""
    limited: dict[str, Any] = {"mails_per_hour": 36_000, "batch_size": 10}
    with shop.worker(**limited), shop.worker(**limited):
        shop.has("spring-voucher", "customers", addresses(30), {"spring-10": codes("SPRING", 30)})
        sendout = shop.send("spring-voucher", "customers")
    started = start_of(shop, sendout["id"])
    for number, at in enumerate(sorted(arrivals(shop)), start=1):
        assert number <= 10 + 10 * (at + TOLERANCE - started).total_seconds()
    assert_own_codes(shop.mails(), addresses(30), codes("SPRING", 30))


def test_an_invalid_time_or_rate_is_wrong_usage(open_shop: Shop) -> None:
    """The error shows the expected format; no command is published."""
    wrong = {
        ("--start-at", "tomorrow"): "write 2030-03-01T09:00",
        ("--over", "5 bananas"): "write 90m, 4h",
        ("--over", "32d"): "up to 31d",
        ("--per-hour", "0"): "x>=1",
        ("--per-hour", "5", "--over", "4h"): "at most one of",
        ("--now", "--start-at", "2030-01-01T09:00Z"): "at most one of --now and --start-at",
    }
    ending = {
        words: open_shop.begin("send", "--message", "none", "--group", "none", *arguments)
        for arguments, words in wrong.items()
    }
    for words, end in ending.items():
        result = end()
        assert (result.code, words in result.err) == (WRONG_USAGE, True), result
