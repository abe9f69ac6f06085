"""A scheduled sendout is shown as scheduled, and can be moved, slowed down or started now."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from producers.local_time import format_time
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes

TOMORROW = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(days=1)
DELAYED = ("--start-at", TOMORROW.isoformat())


def schedule(shop: Shop, name: str, *options: object, recipients: int = 5) -> str:
    """Start a sendout for tomorrow, and wait until its codes are reserved."""
    shop.has(name, name, addresses(recipients), {name: codes(name.upper(), recipients)})
    sendout = shop.coupons("send", "--message", name, "--group", name, *DELAYED, *options).out.strip()
    shop.becomes("sending", sendout)  # as it is stored
    return sendout


def test_a_scheduled_sendout_is_shown_as_scheduled(open_shop: Shop) -> None:
    """`show`, `outbox` and its filter show the state, the start and its zone, and no time at which it started."""
    sendout = schedule(open_shop, "spring")
    shown = open_shop.coupons("show", sendout).out
    assert f"sendout {sendout} scheduled" in shown
    assert f"starts {format_time(TOMORROW)}" in shown
    (listed,) = open_shop.coupons("outbox", "--state", "scheduled", "--json").json
    assert (listed["id"], listed["state"], listed["started_at"]) == (sendout, "scheduled", None)
    assert sendout not in open_shop.coupons("outbox", "--state", "sending").out
    assert "scheduled" in open_shop.coupons("outbox").out
    resumed = open_shop.coupons("resume", sendout, code=FAILED).err
    assert "is scheduled: only an interrupted or paused sendout can be resumed; start it with" in resumed


def test_a_scheduled_sendout_starts_now(open_shop: Shop) -> None:
    """`reschedule --now` starts it, and each recipient gets one mail with their code."""
    sendout = schedule(open_shop, "now")
    assert "is sending" in open_shop.coupons("reschedule", sendout, "--now").out
    open_shop.becomes("finished", sendout)
    assert_own_codes(open_shop.mails(sendout), addresses(5), codes("NOW", 5))
    again = open_shop.coupons("reschedule", sendout, "--now", code=FAILED).err
    assert "is finished: only a scheduled or paused sendout can be rescheduled; start another one" in again


def test_a_scheduled_sendout_is_moved_and_slowed_down(open_shop: Shop) -> None:
    """The new start and pace are printed and shown; a pause keeps them, and a resume schedules the sendout again."""
    sendout = schedule(open_shop, "moved", "--over", "1h", recipients=60)
    later = TOMORROW + timedelta(days=2)
    moved = open_shop.coupons("reschedule", sendout, "--start-at", later.isoformat(), "--per-hour", 20).out
    assert moved.splitlines() == [
        f"sendout {sendout} is scheduled",
        f"  starts {format_time(later)}",
        "  at most 20 mails per hour",
    ]
    assert "is paused" in open_shop.coupons("pause", sendout).out
    paused = open_shop.coupons("reschedule", sendout, "--over", "2h").out
    assert f"continue it with `coupons resume {sendout}`" in paused
    assert "at most 30 mails per hour" in paused
    open_shop.coupons("resume", sendout)
    open_shop.becomes("sending", sendout)
    free = open_shop.coupons("reschedule", sendout, "--no-limit", "--json").json
    assert (free["state"], free["per_hour"]) == ("scheduled", None)
    assert datetime.fromisoformat(free["start_at"]) == later


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give at least one of --start-at, --now, --per-hour, --over and --no-limit"),
        (("--now", *DELAYED), "give at most one of --start-at and --now"),
        (("--per-hour", 5, "--no-limit"), "give at most one of --per-hour, --over and --no-limit"),
        (("--start-at", "soon"), "write 2030-03-01T09:00"),
    ],
)
def test_an_invalid_change_is_wrong_usage(open_shop: Shop, options: tuple[object, ...], words: str) -> None:
    """The message has the options that fit together."""
    unknown = "00000000-0000-0000-0000-000000000001"
    refused = open_shop.coupons("reschedule", unknown, *options, code=WRONG_USAGE)
    assert words in " ".join(refused.err.split())


def test_a_start_in_the_past_is_refused(open_shop: Shop) -> None:
    """The message names the time and --now, and the sendout stays as it is."""
    sendout = schedule(open_shop, "past")
    refused = open_shop.coupons("reschedule", sendout, "--start-at", "2026-01-01T09:00Z", code=FAILED).err
    assert "the start 2026-01-01T09:00+00:00 is more than 5 minutes in the past: to start now, use --now" in refused
    assert json.loads(open_shop.coupons("show", sendout, "--json").out)["sendout"]["state"] == "scheduled"
