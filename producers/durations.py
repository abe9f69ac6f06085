"""Durations and rates as users write and read them: `90m`, "3 h 20 min", "400 mails/s"."""

import re
from datetime import UTC, datetime

from producers.local_time import format_next

_WRITTEN = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_SECONDS = (86_400, 3_600, 60, 1)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def parse_minutes(text: str) -> int | None:
    """Return the minutes of `4h`, `90m`, `2d` or `1h30m`; None if the text is not a duration or is zero."""
    seconds = None if "s" in text.lower() else parse_seconds(text)
    return None if seconds is None else seconds // 60


def parse_seconds(text: str) -> int | None:
    """Return the seconds of `30s`, `10m`, `2h` or `1h30m`; None if the text is not a duration or is zero."""
    found = _WRITTEN.fullmatch(text.strip().lower())
    if found is None:
        return None
    return sum(int(amount or 0) * unit for amount, unit in zip(found.groups(), _SECONDS, strict=True)) or None


def describe_invalid_minutes(text: str, most: int) -> str:
    """Return how a duration of up to `most` minutes is written."""
    return f"{text!r} is not a duration: write 90m, 4h, 1h30m or 2d, up to {most // 24 // 60}d"


def format_duration(seconds: float) -> str:
    """Return the duration in its two largest units, as `3 h 20 min`. Less than a second is `1 s`."""
    rest = max(1, round(seconds))
    parts: list[str] = []
    for unit, name in _UNITS:
        amount, rest = divmod(rest, unit)
        if amount or parts:
            parts.append(f"{amount} {name}" if amount else "")
    return " ".join(filter(None, parts[:2]))


def format_deferred(deferred: int, next_attempt_at: datetime | None) -> str:
    """Return how many mails wait for another attempt, and when the next attempt is."""
    text = f"{deferred:,} {'waits' if deferred == 1 else 'wait'} for another attempt"
    if next_attempt_at is None:
        return text
    is_due = next_attempt_at <= datetime.now(UTC)
    return f"{text}, next {'now' if is_due else f'at {format_next(next_attempt_at)}'}"


def format_rate(per_second: float) -> str:
    """Return the rate per second or, below one mail per second, per hour."""
    return _format_mails(per_second, "/s") if per_second >= 1 else _per_hour(per_second * 3_600, "/h")


def format_limit(per_hour: float) -> str:
    """Return the rate limit, as `400 mails per hour`, `1.4 mails per hour` or, below one mail, `1 mail every 2 h`."""
    return _per_hour(per_hour, " per hour")


def _per_hour(per_hour: float, unit: str) -> str:
    return _format_mails(per_hour, unit) if per_hour >= 1 else f"1 mail every {format_duration(3_600 / per_hour)}"


def _format_mails(number: float, unit: str) -> str:
    shown = f"{number:,.0f}" if number >= 10 else f"{round(number, 1):g}"
    return f"{shown} {'mail' if shown == '1' else 'mails'}{unit}"
