"""Every rate and time left that a sendout shows is compared with what came to pass.

`make estimates` runs this for two minutes per sendout (COUPONS_ESTIMATE_SECONDS=120) and prints the table of
docs/decisions/0019-rate-and-time-left.md.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sandbox.services import Services, private_sink
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

SECONDS = int(os.environ.get("COUPONS_ESTIMATE_SECONDS", "10"))
"""About how long each sendout takes."""
LONG = SECONDS > 60
LOOK_SECONDS = 0.7
TOLERANCE = 0.2
LEAST_SECONDS = 1.5
"""A time left may always differ by this much: it is shown in whole seconds."""
RATE_WINDOW = timedelta(seconds=20 if LONG else 4)
"""The shown rate is compared with that of this time."""


Pair = tuple[float, float]
"""A shown number, and what came to pass."""


@dataclass(frozen=True, slots=True)
class Run:
    """A kind of sendout that takes about SECONDS."""

    name: str
    mails: int
    greylisted: int = 0
    """The percentage of mails that are deferred at the first attempt."""
    delay: float = 0
    options: tuple[object, ...] = ()
    batch_size: int = 1_000


PACED_BATCH = 100 if LONG else 10
"""With 36,000 mails per hour, a batch of 100 mails is sent every 10 s."""
RUNS = (
    Run("slow relay", mails=27 * SECONDS, delay=0.3),
    Run("very slow relay", mails=2 * SECONDS, delay=3),
    Run("greylisting of 10 %", mails=25 * SECONDS, greylisted=10, delay=0.3),
    Run("36,000 per hour", mails=10 * SECONDS, options=("--per-hour", 36_000), batch_size=PACED_BATCH),
    Run("36,000 per hour, greylisting of 10 %", mails=10 * SECONDS, greylisted=10, options=("--per-hour", 36_000),
        batch_size=PACED_BATCH),
    Run("36,000 per hour, slow relay", mails=10 * SECONDS, delay=0.3, options=("--per-hour", 36_000),
        batch_size=PACED_BATCH),
    Run("36,000 per hour, too slow relay", mails=2 * SECONDS, delay=3, options=("--per-hour", 36_000),
        batch_size=PACED_BATCH),
)  # fmt: skip
SHORT = ("36,000 per hour", "36,000 per hour, greylisting of 10 %")
"""A measured rate needs more time, and a machine that does nothing else."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the sendout shows at a time."""

    at: datetime
    per_second: float | None
    seconds_left: float | None
    deferred: int


@dataclass(frozen=True, slots=True)
class Truth:
    """When each mail had its first outcome, and when any attempt had an outcome."""

    first: Sequence[datetime]
    all: Sequence[datetime]

    def seconds_left(self, at: datetime) -> float:
        return (self.first[-1] - at).total_seconds()

    def rate(self, at: datetime) -> float:
        """Return the rate of the next RATE_WINDOW or, shortly before the end, of the last one."""
        begin = min(at, self.first[-1] - RATE_WINDOW)
        return sum(begin < each <= begin + RATE_WINDOW for each in self.all) / RATE_WINDOW.total_seconds()

    def whole_rate(self, of: int) -> float:
        """Return the rate of the whole sendout, in batches of this size that are sent at once."""
        return (len(self.first) - of) / (self.first[-1] - self.first[0]).total_seconds()


@pytest.fixture(params=[run for run in RUNS if LONG or run.name in SHORT], ids=lambda run: run.name)
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.param
    return found


@pytest.fixture
def slow_shop(services: Services, tmp_path: Path, run: Run) -> Iterator[Shop]:
    with private_sink(tmp_path / "slow.jsonl", "--delay", str(run.delay), "--greylist", str(run.greylisted)) as sink:
        yield Shop(replace(services, smtp_url=sink.url, ledger=sink.ledger), sink, tmp_path)


@pytest.mark.timeout(60 + 3 * SECONDS)
def test_shown_rates_and_times_left_come_to_pass(slow_shop: Shop, run: Run) -> None:
    """Each shown rate and time left is within 20 % of what came to pass. Deferred mails are shown apart."""
    slow_shop.has("shown", "shown", addresses(run.mails), {"shown": codes("SHOWN", run.mails)})
    with slow_shop.worker(batch_size=run.batch_size):
        sendout = slow_shop.begin_sending("shown", "shown", *run.options)
        looks = list(_watch(slow_shop, sendout))
        if run.greylisted:
            slow_shop.coupons("cancel", sendout)
        truth = _truth(slow_shop, sendout)
    is_kept = run.options and "too slow" not in run.name
    rates = [
        (look.per_second, truth.whole_rate(run.batch_size) if is_kept else truth.rate(look.at))
        for look in looks if look.per_second
    ]  # fmt: skip
    left = [(look.seconds_left, truth.seconds_left(look.at)) for look in looks if look.seconds_left]
    _report(run, looks, rates, left, truth)
    assert [each for each in rates if abs(each[0] - each[1]) > TOLERANCE * each[1]] == []
    assert [each for each in left if abs(each[0] - each[1]) > max(TOLERANCE * each[1], LEAST_SECONDS)] == []
    assert 3 * min(len(rates), len(left)) > len(looks)
    if run.greylisted:
        assert max(look.deferred for look in looks) > run.mails * run.greylisted / 100 / 4


def _watch(shop: Shop, sendout: UUID) -> Iterator[Look]:
    """Yield what `show` prints, about once per second, until each mail has had its first outcome."""

    def show() -> Any:
        return shop.coupons("show", sendout, "--json").json["sendout"]

    eventually(lambda: show()["started_at"], "the start")
    while True:
        before, found, after = _now(shop), show(), _now(shop)
        if not found["remaining"] - found["deferred"]:
            return
        yield Look(before + (after - before) / 2, found["per_second"], found["seconds_left"], found["deferred"])
        time.sleep(LOOK_SECONDS)


def _now(shop: Shop) -> datetime:
    (row,) = shop.rows("SELECT clock_timestamp() AS now")
    now: datetime = row["now"]
    return now


def _truth(shop: Shop, sendout: UUID) -> Truth:
    attempts = [row["at"] for row in shop.rows("SELECT at FROM delivery_attempt WHERE sendout_id = $1", sendout)]
    done = """SELECT changed_at AS at, attempts FROM delivery WHERE sendout_id = $1 AND state IN ('sent', 'refused')"""
    ends = shop.rows(done, sendout)
    first = [row["at"] for row in ends if row["attempts"] == 1] + attempts
    return Truth(sorted(first), sorted([row["at"] for row in ends] + attempts))


def _report(run: Run, looks: Sequence[Look], rates: Sequence[Pair], left: Sequence[Pair], truth: Truth) -> None:
    """Write a row of the table, and with COUPONS_ESTIMATE_TRACE every look."""
    seconds = (truth.first[-1] - truth.first[0]).total_seconds()
    cells = (
        run.name,
        f"{run.mails:,}",
        f"{seconds:.0f} s",
        len(looks),
        len(rates),
        _worst(rates),
        len(left),
        _worst(left, LEAST_SECONDS),
    )
    sys.stderr.write(f"\n| {' | '.join(map(str, cells))} |\n")
    if trace := os.environ.get("COUPONS_ESTIMATE_TRACE"):
        numbers = {
            "looks": [(look.at.timestamp(), look.per_second, look.seconds_left, look.deferred) for look in looks],
            "first": [each.timestamp() for each in truth.first],
            "all": [each.timestamp() for each in truth.all],
        }
        Path(trace, f"{run.name}.json").write_text(json.dumps(numbers))
    for look in looks if trace else ():
        sys.stderr.write(
            f"  {truth.seconds_left(look.at):6.1f} s left: shown {look.seconds_left or 0:6.1f}; "
            f"{truth.rate(look.at):6.2f}/s: shown {look.per_second or 0:6.2f}; {look.deferred} deferred\n"
        )


def _worst(pairs: Sequence[Pair], tolerated: float = 0) -> str:
    """Return the lowest and the highest error, without errors of times below `tolerated` seconds."""
    errors = [(shown - came) / came for shown, came in pairs if abs(shown - came) > tolerated]
    return f"{min(errors, default=0):+.0%} … {max(errors, default=0):+.0%}"
