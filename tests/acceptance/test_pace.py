"""Mails leave after the start time, at the requested rate, and within the rate limit that all workers share."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import WRONG_USAGE
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
        assert f"starts {start_at.astimezone():%Y-%m-%d %H:%M}" in shop.coupons("show", sendout).out
        tomorrow = (datetime.now() + timedelta(days=1)).isoformat(timespec="minutes")  # noqa: DTZ005 - typed without a zone
        assert shop.coupons(*later, tomorrow, "--wait", "--json", code=4).json["lists"][0]["missing"] == 10
        shop.becomes("finished", sendout)
    assert min(arrivals(shop)) >= start_at - TOLERANCE
    assert_own_codes(shop.mails(sendout), addresses(10), codes("SPRING", 10))


def test_a_start_time_in_the_past_means_now(open_shop: Shop) -> None:
    """A script that runs late can use a past start time without an error."""
    open_shop.has("late", "late", addresses(2), {"late": codes("LATE", 2)})
    past = ("--start-at", "2020-02-29T09:00:00+01:00", "--wait", "--json")
    assert open_shop.coupons("send", "--message", "late", "--group", "late", *past).json["sent"] == 2


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
        ("--start-at", "tomorrow"): "write 2026-03-01T09:00",
        ("--over", "5 bananas"): "write 90m, 4h",
        ("--over", "32d"): "up to 31d",
        ("--per-hour", "0"): "x>=1",
        ("--per-hour", "5", "--over", "4h"): "at most one of",
    }
    ending = {
        words: open_shop.begin("send", "--message", "none", "--group", "none", *arguments)
        for arguments, words in wrong.items()
    }
    for words, end in ending.items():
        result = end()
        assert (result.code, words in result.err) == (WRONG_USAGE, True), result
