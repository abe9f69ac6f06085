"""Local times as users read and write them. A time is never guessed, and is never shown without its zone."""

import os
import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from coupons.errors import UserError

_POSIX_NAME = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)"
_POSIX_ZONE = re.compile(rf"{_POSIX_NAME}[+-]?\d{{1,3}}(?::\d\d){{0,2}}(?:{_POSIX_NAME}.*)?", re.ASCII)
"""A zone by its rule instead of its name, such as `CET-1CEST,M3.5.0,M10.5.0/3`; the C library evaluates it."""


class UnknownZone(UserError):
    """The environment variable TZ names an unknown time zone, which the C library would treat as UTC."""


class InvalidTime(UserError):
    """A text is not a time, or not exactly one time of its zone."""


def local_zone() -> tzinfo | None:
    """Return the zone in TZ; None for the zone of the system, which the C library knows. Raises UnknownZone."""
    given = os.environ.get("TZ")
    if given is None:
        return None
    name = given.removeprefix(":")
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if _POSIX_ZONE.fullmatch(name) or (name.startswith("/") and os.path.isfile(name)):  # noqa: PTH113 - pathlib takes 5 ms to import
            return None
    raise UnknownZone(f"TZ={given}: unknown time zone; write a name such as Europe/Berlin or UTC, or unset TZ")


def name_of_local_zone() -> str:
    """Return the name of the local zone, such as Europe/Berlin; UTC if it has no name. Raises UnknownZone."""
    zone = local_zone()
    if isinstance(zone, ZoneInfo) and zone.key:
        return zone.key
    _, found, name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return name if zone is None and found and "TZ" not in os.environ else "UTC"


def to_local(at: datetime) -> datetime:
    """Return the time in the local zone."""
    return at.astimezone(local_zone())


def zone_of(at: datetime) -> str:
    """Return the zone of a local time: `CET`, or `UTC-03` for a zone without an abbreviation."""
    name = f"{at:%Z}"
    return f"UTC{name}" if name[:1] in ("+", "-") else name


def format_time(at: datetime, *, seconds: bool = False) -> str:
    """Return the local time with its zone, as `2030-03-01 09:00 CET`."""
    local = to_local(at)
    clock = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
    return f"{local:%Y-%m-%d} {clock} {zone_of(local)}"


def format_next(at: datetime) -> str:
    """Return the time of a future event for a short text: `14:20 CET`, with the date if it is on another day."""
    local = to_local(at)
    return f"{local:%H:%M} {zone_of(local)}" if local.date() == to_local(datetime.now(UTC)).date() else format_time(at)


def parse_time(text: str, zone: tzinfo | None) -> datetime:
    """Return the time of an ISO 8601 text. Without an offset, it is a time in this zone; None is the system's zone.

    Raises:
        InvalidTime: the text is not a time, or the clocks of the zone skip or repeat this time. The message has the
            texts that are valid.
    """
    try:
        at = datetime.fromisoformat(text.strip())
        if at.tzinfo:
            at.astimezone(UTC)
            return at
        return _only_time(text.strip(), at, zone)
    except (ValueError, OverflowError):
        raise InvalidTime(
            f"{text!r} is not a time: write 2030-03-01T09:00, or with a zone 2030-03-01T09:00+01:00"
        ) from None


def _only_time(text: str, wall: datetime, zone: tzinfo | None) -> datetime:
    """Return the only time at which the clocks of the zone show `wall`. Raises InvalidTime."""
    first, second = (_at(wall, zone, fold) for fold in (0, 1))
    if _wall(first) != wall:  # between the offsets before and after the skipped time
        before, after = _around_skip(second, first, zone)
        raise InvalidTime(
            f"{text} does not exist in {_label(zone)}, whose clocks go from {before:%H:%M} to {after:%H:%M}: write "
            f"{_spelled(before)} or {_spelled(after)}"
        )
    if first.utcoffset() != second.utcoffset():
        raise InvalidTime(
            f"{text} exists twice in {_label(zone)}, because its clocks go back: write {_spelled(first)} or "
            f"{_spelled(second)}"
        )
    return first


def _at(wall: datetime, zone: tzinfo | None, fold: int) -> datetime:
    """Return the first or second time of `wall`; a skipped time is moved by the length of the skip."""
    local = wall.replace(fold=fold)
    aware = local.astimezone() if zone is None else local.replace(tzinfo=zone)
    return aware.astimezone(UTC).astimezone(zone)


def _wall(at: datetime) -> datetime:
    return at.replace(tzinfo=None, fold=0)


def _around_skip(before: datetime, after: datetime, zone: tzinfo | None) -> tuple[datetime, datetime]:
    """Return the last full minute before the clocks skip, and the first time after it."""
    low, high = int(before.timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        if _from_timestamp(middle, zone).utcoffset() == before.utcoffset():
            low = middle
        else:
            high = middle
    last = _from_timestamp(low, zone)
    return last - timedelta(seconds=last.second), _from_timestamp(high, zone)


def _from_timestamp(seconds: int, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone)


def _label(zone: tzinfo | None) -> str:
    return str(zone) if zone else "this machine's time zone"


def _spelled(at: datetime) -> str:
    """Return the time with its offset, as it can be given; without seconds if they are zero."""
    return at.isoformat(timespec="minutes" if not at.second else "seconds")
