"""The rate and the time left of a sendout follow from its rate limit, or from samples of its outcomes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from coupons.sendout_speed import IDLE_SECONDS, Pending, Rate, Sample, Speed, estimate, measure

START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def measured(
    outcomes: Callable[[float], float], until: float, *, since: float = 0, silent: float = 0, first: float = 1
) -> Rate | None:
    """Return the rate after `until` seconds. `outcomes` gives their number at a time; a sample is taken every 2 s.

    `first` is the fraction of the outcomes that are of pending mails.
    """

    def sample(seconds: float) -> Sample:
        count = int(outcomes(seconds))
        return Sample(START + timedelta(seconds=seconds), count, int(first * count))

    last = sample(until)
    return measure(
        [sample(each) for each in range(0, int(until), 2)], last, since=START + timedelta(seconds=since),
        progressed_at=last.at, now=last.at + timedelta(seconds=silent),
    )  # fmt: skip


def pending(
    mails: int = 100,
    *,
    unclaimed: int = 0,
    batches: int = 0,
    claimed: int = 0,
    next_in: float = 0,
    batch: float | None = 0,
    age: float = 0,
) -> Pending:
    return Pending(mails, unclaimed, batches, claimed, next_in, batch, age)


def rate_of(per_second: float, first: float) -> object:
    """A measured rate, whose samples are 2 s apart."""
    return Rate(pytest.approx(per_second), pytest.approx(first), 0, 2)  # type: ignore[arg-type]


def test_the_rate_is_that_of_the_window() -> None:
    """Half a minute counts; what was before does not."""
    assert measured(lambda seconds: 10 * seconds, 60) == rate_of(10, 10)
    assert measured(lambda seconds: 50 * min(seconds, 20) + 10 * seconds, 60) == rate_of(10, 10)


def test_the_beginning_does_not_count() -> None:
    """A worker opens connections and hands over more mails step by step. Fast relays have a shorter beginning."""
    assert measured(lambda seconds: 10 * seconds, 19) is None
    assert measured(lambda seconds: 10 * max(seconds - 8, 0), 24) == rate_of(10, 10)
    assert measured(lambda seconds: 1_000 * seconds, 5) is None
    assert measured(lambda seconds: 1_000 * seconds, 6) == rate_of(1_000, 1_000)


def test_the_rate_of_a_relay_that_accepts_mails_in_bursts_is_right_at_each_time() -> None:
    """The relay accepts ten mails after 3 and after 6 s by turns, which are 2.2 mails/s."""
    rates = [measured(lambda seconds: 20 * (seconds // 9) + 10 * (seconds % 9 >= 3), until) for until in range(50, 80)]
    known = [rate.per_second for rate in rates if rate]
    assert len(known) == 20
    assert known == pytest.approx([2.22] * 20, rel=0.12)


def test_an_unsteady_rate_is_unknown() -> None:
    """If the relay becomes faster or slower, neither the old nor the average rate tells the time left."""
    assert measured(lambda seconds: 10 * seconds + 20 * max(seconds - 40, 0), 50) is None
    assert measured(lambda seconds: 10 * min(seconds, 40), 55) is None


def test_retries_of_deferred_mails_count_for_the_rate_only() -> None:
    """They take time, so the pending mails need longer than the rate alone suggests."""
    rate = measured(lambda seconds: 10 * seconds, 60, first=0.5)
    assert rate == rate_of(10, 5)
    assert estimate(pending(100), rate, None) == Speed(10, 20)


def test_retries_that_come_due_take_time() -> None:
    """100 mails at 10 mails/s take 10 s; of 60 deferred ones, 11 are due in the time that results."""
    mails = Pending(100, 0, 0, 0, 0, None, deferred=60, deferred_share=0.3)
    assert estimate(mails, Rate(10, 10), None).seconds_left == pytest.approx(11.1, abs=0.1)
    many = Pending(1_200, 0, 0, 0, 0, None, deferred=0, deferred_share=0.1)
    assert estimate(many, Rate(10, 10), None).seconds_left == pytest.approx(126, abs=1)


def test_the_time_left_is_unknown_when_one_gap_between_outcomes_changes_it_by_a_fifth() -> None:
    """The last mails of a relay that accepts mails every 4 s may need 4 s more."""
    assert estimate(pending(210), Rate(10, 10, gap_seconds=4), None) == Speed(10, 21)
    assert estimate(pending(190), Rate(10, 10, gap_seconds=4), None) == Speed(10)


def test_the_time_since_the_last_outcome_has_passed() -> None:
    """Forty mails, of which a relay accepts ten every 4 s, need 13 more seconds if the last outcome is 3 s ago."""
    rate = measured(lambda seconds: 10 * (seconds // 4), 60, silent=3)
    assert rate
    assert estimate(pending(40), rate, None).seconds_left == pytest.approx(13, abs=1)


def test_a_sendout_without_outcomes_has_no_rate() -> None:
    """The rate is unknown at the beginning, and if nothing has moved for half a minute."""
    assert measured(lambda _: 0, 60) is None
    assert measured(lambda seconds: 10 * seconds, 60, silent=IDLE_SECONDS + 1) is None
    assert estimate(pending(), None, None) == Speed()


def test_a_sample_after_the_last_outcome_does_not_count() -> None:
    """Without an outcome for some seconds, a sample has its own time, and the present numbers that of the outcome."""
    samples = [Sample(START + timedelta(seconds=each), 100, 100) for each in (0, 24)]
    last = Sample(START + timedelta(seconds=23), 110, 110)
    assert measure(samples, last, since=START, progressed_at=last.at, now=last.at) is None


def test_the_rate_does_not_contain_the_time_of_a_pause() -> None:
    """Samples from before the last resume do not count."""
    assert measured(lambda seconds: 10 * max(seconds - 30, 0), 54, since=30) == rate_of(10, 10)


def test_the_rate_does_not_contain_the_time_of_an_outage() -> None:
    """No worker takes samples while no mail can be handed over."""
    times = [*range(0, 20, 2), *range(60, 84, 2)]
    samples = [Sample(START + timedelta(seconds=each), 10 * each, 10 * each) for each in times]
    last = Sample(START + timedelta(seconds=84), 840, 840)
    assert measure(samples, last, since=START, progressed_at=last.at, now=last.at) == rate_of(10, 10)
    last = Sample(START + timedelta(seconds=64), 640, 640)
    assert measure(samples[:12], last, since=START, progressed_at=last.at, now=last.at) is None


def test_with_a_rate_limit_the_time_left_follows_from_the_limit() -> None:
    """Each batch waits for the time of the mails before it; the last one is sent at once."""
    left = estimate(pending(30, unclaimed=30, batches=3, next_in=4, batch=1), Rate(0.9, 0.9), 3_600)
    assert left.seconds_left == pytest.approx(4 + 20 + 1)
    assert estimate(pending(5, claimed=1, batch=2, age=1), None, 3_600) == Speed(1, 1)
    assert estimate(pending(0), None, 3_600) == Speed(1, None)


def test_the_time_left_of_a_slower_pace_counts_each_lease_of_a_batch() -> None:
    """A batch that was cut for a faster pace has the mails of many leases, whether a worker has claimed it or not."""

    def left(mails: Pending, per_hour: float = 3_600) -> float | None:
        return estimate(mails, None, per_hour).seconds_left

    assert left(pending(990, unclaimed=990, batches=1, next_in=5)) == pytest.approx(985)
    assert left(pending(990, claimed=1, next_in=5)) == pytest.approx(975)
    assert left(pending(1_990, unclaimed=1_000, batches=1, claimed=1, next_in=5)) == pytest.approx(1_975)
    assert left(pending(5_000, unclaimed=5_000, batches=5), 3_600_000) == pytest.approx(4)


def test_workers_that_do_not_keep_the_rate_limit_determine_the_rate() -> None:
    """If the next batch is overdue, the relay or the workers are slower than the limit."""
    assert estimate(pending(30, unclaimed=30, batches=3, next_in=-5), Rate(0.5, 0.5), 3_600) == Speed(0.5, 60)
    assert estimate(pending(30, unclaimed=30, batches=3, next_in=-5), None, 3_600) == Speed()
    assert estimate(pending(30, unclaimed=30, batches=3, age=11), None, 3_600) == Speed()
    assert estimate(pending(30, unclaimed=30, batches=3, batch=40), None, 3_600) == Speed()
    assert estimate(pending(30, unclaimed=30, batches=3), Rate(0.5, 0.5), 3_600) == Speed(0.5, 60)


def test_a_rate_limit_is_shown_once_a_batch_has_shown_that_it_is_kept() -> None:
    """The first batch may take longer than its mails may."""
    assert estimate(pending(30, unclaimed=20, batches=2, batch=None), None, 3_600) == Speed()
