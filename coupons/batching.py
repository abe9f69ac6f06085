"""How many mails a worker hands over under one lease."""

BATCH_SECONDS = 10
"""With a rate limit, a lease covers the mails of this many seconds. They are sent at once, and the next batch waits."""


def paced_batch(batch_size: int, per_hour: float | None) -> int:
    """The number of mails for one lease. With a rate limit: as many as it allows in BATCH_SECONDS, and at least one."""
    return batch_size if per_hour is None else max(1, min(batch_size, int(per_hour * BATCH_SECONDS / 3_600)))


def paced_seconds(mails: int, per_hour: float) -> float:
    """The time from the start until the last batch is sent. Each batch waits for the time of those before it."""
    before_last = max(mails - 1, 0) // (size := paced_batch(max(mails, 1), per_hour)) * size
    return before_last * 3_600 / per_hour
