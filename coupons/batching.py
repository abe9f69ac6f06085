"""How a pace cuts a sendout into batches."""

BATCH_SECONDS = 10
"""A sendout that keeps a pace sends so many seconds' mails at once, and then none for as long."""


def paced_batch(batch_size: int, per_hour: float | None) -> int:
    """How many mails a batch has: at a pace as many as leave within seconds, and at least one."""
    return batch_size if per_hour is None else max(1, min(batch_size, int(per_hour * BATCH_SECONDS / 3_600)))
