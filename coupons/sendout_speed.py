"""The rate of a sendout, and the time until its pending mails have an outcome; deferred mails do not count for it.

With a rate limit that the workers keep, both follow from the limit. Otherwise the rate is measured: workers store the
number of outcomes at most SAMPLE_SECONDS apart (decision 19 compares estimators).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean

from coupons.batching import BATCH_SECONDS, paced_batch

SAMPLE_SECONDS = 2.0
"""Workers store at most one sample of a sendout in this time."""
SMALL_SENDOUT = 20
"""Workers store no samples of a sendout to at most this number of recipients: it is finished before it has a rate."""
SAMPLES = 32
"""The number of samples that are kept: those of the last minute."""
WINDOW_SECONDS = 30.0
"""The rate is measured in this time."""
BEGIN_SECONDS, BEGIN_OUTCOMES = 10.0, 500
"""The first seconds or outcomes do not count: a worker opens connections and hands over more mails step by step."""
LEAST_SECONDS = 10.0
"""The rate is measured in at least this time, because relays often accept mails in bursts."""
LEAST_SECONDS_OF_MANY = 3.0
"""This time is enough for BEGIN_OUTCOMES."""
STEADY = 0.2
"""The rate is unknown while those of the two halves of the time differ by more than this fraction."""
IDLE_SECONDS = 30.0
"""If a sendout had no outcome for this time, it has no rate; earlier samples do not count afterwards."""
RETRY_SECONDS, ITERATIONS = 60.0, 8
"""How long after its first attempt a deferred mail is retried, and how often the time left is improved for it."""
OVERDUE_SECONDS = 2.0
"""If no worker claims a due batch within this time, the workers and not the rate limit determine the rate."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The number of outcomes at the time of the last outcome; `first` ones are of pending mails, not of deferred."""

    at: datetime
    outcomes: int
    first: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Outcomes per second; `first` ones are of pending mails, not of deferred ones."""

    per_second: float
    first: float
    silent_seconds: float = 0
    """How long ago the last outcome was, up to a limit."""
    gap_seconds: float = 0
    """The longest time between two samples, which have the times of outcomes."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The mails that have no outcome yet, and are not deferred."""

    mails: int
    unclaimed: int
    """Those of batches that no worker has claimed."""
    unclaimed_batches: int
    claimed_batches: int
    next_batch_in: float
    """Seconds until the next batch may be claimed. If it is negative, the batch is overdue."""
    batch_seconds: float | None
    """How long a batch takes; None while none is released."""
    claimed_seconds: float = 0
    """How long ago the oldest claimed batch with such mails was claimed."""
    deferred: int = 0
    """Deferred mails. Their retries take some of the relay's time."""
    deferred_share: float = 0
    """The fraction of the first attempts after which a mail was deferred."""


@dataclass(frozen=True, slots=True)
class Speed:
    per_second: float | None = None
    seconds_left: float | None = None


def estimate(pending: Pending, rate: Rate | None, per_hour: float | None) -> Speed:
    """Return the rate and the time left."""
    if per_hour and _is_kept(pending, rate, per_hour):
        return Speed(per_hour / 3_600, _paced_seconds(pending, per_hour) if pending.mails else None)
    if rate is None:
        return Speed()
    return Speed(rate.per_second, _seconds_left(pending, rate) if pending.mails and rate.first else None)


def _is_kept(pending: Pending, rate: Rate | None, per_hour: float) -> bool:
    """Whether the workers keep the rate limit: they claim batches when these are due, and send them at once.

    With a rate limit, a worker sends the mails of BATCH_SECONDS before it releases their batch.
    """
    if pending.batch_seconds is None or pending.next_batch_in < -OVERDUE_SECONDS:
        return False
    is_slower = rate is not None and rate.per_second < (1 - STEADY) * per_hour / 3_600
    return max(pending.batch_seconds, pending.claimed_seconds) <= BATCH_SECONDS and not is_slower


def _seconds_left(pending: Pending, rate: Rate) -> float | None:
    """Return the time left; None if one gap between outcomes is more than the fraction STEADY of it.

    The time since the last outcome has passed. Otherwise the last mails of a slow relay seem to end too late.
    """
    seconds = max(pending.mails / rate.first, _with_retries(pending, rate)) - rate.silent_seconds
    return seconds if STEADY * seconds >= rate.gap_seconds else None


def _with_retries(pending: Pending, rate: Rate) -> float:
    """Return the time left if deferred mails are retried RETRY_SECONDS after their first attempts."""
    seconds = pending.mails / rate.per_second
    for _ in range(ITERATIONS):
        due = pending.deferred * min(1, seconds / RETRY_SECONDS)
        deferred_again = pending.deferred_share * pending.mails * max(0, 1 - RETRY_SECONDS / max(seconds, 1))
        seconds = (pending.mails + due + deferred_again) / rate.per_second
    return seconds


def _paced_seconds(pending: Pending, per_hour: float) -> float:
    """Each lease waits for the time of the mails before it, and those of the last one are sent at once.

    After a change to a slower pace, a batch has the mails of many leases (docs/decisions/0017).
    """
    batch_seconds = pending.batch_seconds or 0
    lease = _lease_mails(pending, per_hour)
    waiting = pending.mails - min(pending.mails - pending.unclaimed, pending.claimed_batches * lease)
    if not waiting:
        return max(batch_seconds - pending.claimed_seconds, 0)
    return max(pending.next_batch_in, 0) + max(waiting - lease, 0) * 3_600 / per_hour + batch_seconds


def _lease_mails(pending: Pending, per_hour: float) -> int:
    """Return the number of mails of one lease, which has at most those of a batch."""
    batch = pending.unclaimed // pending.unclaimed_batches if pending.unclaimed_batches else pending.mails
    return paced_batch(batch, per_hour)


def measure(
    samples: Sequence[Sample], last: Sample, *, since: datetime, progressed_at: datetime, now: datetime
) -> Rate | None:
    """Return the rate of the last WINDOW_SECONDS, but not from before `since`; None if it is unknown.

    `last` is the sample of now, `progressed_at` the time of the last outcome.
    """
    window = _window(samples, last, since)
    if not window or _seconds(progressed_at, now) > IDLE_SECONDS:
        return None
    first, middle = window[0], _middle(window, last)
    if not _is_long_enough(first, last) or not _is_steady(_rate(first, middle), _rate(middle, last)):
        return None
    series = (*window, last)
    times = [_seconds(first.at, each.at) for each in series]
    return Rate(
        _slope(times, [each.outcomes for each in series]),
        _slope(times, [each.first for each in series]),
        _seconds(last.at, now),
        max(end - begin for begin, end in pairwise(times)),
    )


def _slope(times: Sequence[float], counts: Sequence[int]) -> float:
    """Return the slope of the regression line. The ends of the window matter less for it than for the average rate.

    If a relay accepts ten mails after 3 and after 6 s by turns, the average of half a minute is wrong by up to 23 %.
    """
    middle = fmean(times)
    return sum((time - middle) * count for time, count in zip(times, counts, strict=True)) / sum(
        (time - middle) ** 2 for time in times
    )


def _window(samples: Sequence[Sample], last: Sample, since: datetime) -> list[Sample]:
    """Return the samples of the window, without those of the beginning of the sendout, or from before a pause."""
    series = _series([each for each in samples if each.at >= since], last)
    begin = last.at - timedelta(seconds=WINDOW_SECONDS)
    return [each for each in series if begin <= each.at <= last.at and _has_begun(series[0], each)]


def _series(samples: Sequence[Sample], last: Sample) -> list[Sample]:
    """Return the samples after the last time without outcomes."""
    series: list[Sample] = []
    for sample, following in pairwise((*samples, last)):
        series = [] if _seconds(sample.at, following.at) > IDLE_SECONDS else [*series, sample]
    return series


def _has_begun(start: Sample, sample: Sample) -> bool:
    return _seconds(start.at, sample.at) >= BEGIN_SECONDS or sample.outcomes - start.outcomes >= BEGIN_OUTCOMES


def _is_long_enough(first: Sample, last: Sample) -> bool:
    seconds = _seconds(first.at, last.at)
    is_many = last.outcomes - first.outcomes >= BEGIN_OUTCOMES
    return seconds >= (LEAST_SECONDS_OF_MANY if is_many else LEAST_SECONDS) and last.outcomes > first.outcomes


def _middle(window: Sequence[Sample], last: Sample) -> Sample:
    """Return the last sample of the first half of the window."""
    half = window[0].at + (last.at - window[0].at) / 2
    return [each for each in window if each.at <= half][-1]


def _is_steady(earlier: float, later: float) -> bool:
    return abs(later - earlier) <= STEADY * max(earlier, later)


def _rate(first: Sample, last: Sample) -> float:
    return (last.outcomes - first.outcomes) / max(_seconds(first.at, last.at), 0.001)


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()
