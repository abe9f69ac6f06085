"""The batch size of a sendout."""

BATCH_SECONDS = 10
"""A sendout with a rate limit sends the mails of this many seconds at once, then none for as long."""


def paced_batch(batch_size: int, per_hour: float | None) -> int:
    """The number of mails in a batch; with a rate limit, those of BATCH_SECONDS, and at least one."""
    return batch_size if per_hour is None else max(1, min(batch_size, int(per_hour * BATCH_SECONDS / 3_600)))
