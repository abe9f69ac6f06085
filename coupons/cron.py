"""Times of a cron expression in a time zone.

cronsim evaluates expressions as Debian's cron does: a daily time that the clocks skip runs right after the skip, and
one that they repeat runs once (docs/decisions/0026).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from coupons.errors import UserError

FIELDS = 5
MAX_CHARS = 200
MAX_COUNTED = 1_000
"""The number up to which missed occurrences are counted."""
_NICKNAMES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}


_NO_ZONES = ("localtime", "posixrules", "Factory")
"""Files among the time zones that are none, or mean another zone on each machine."""


class InvalidCron(UserError, ValueError):
    """A cron expression or a time zone is invalid. The text is one line that says why."""


class InvalidZone(InvalidCron):
    """The time zone is unknown."""


def is_zone(name: str) -> bool:
    """Whether this machine knows the time zone."""
    try:
        _zone(name)
    except InvalidZone:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression of five fields, and the name of its time zone. Raises InvalidCron."""

    expression: str
    zone: str

    def __post_init__(self) -> None:
        if len(self.expression) > MAX_CHARS or not self.expression.isprintable():
            raise InvalidCron(f"a cron expression has at most {MAX_CHARS} printable characters")
        if self.expression not in _NICKNAMES and len(self.expression.split()) != FIELDS:
            raise InvalidCron(
                "a cron expression has five fields, minute, hour, day of month, month and day of week, such as "
                "'30 6 * * 1-5', or is one of " + ", ".join(_NICKNAMES)
            )
        try:
            CronSim(self._five_fields, datetime.now(self._zone))
        except CronSimError as error:
            raise InvalidCron(self._explain(error)) from None

    def __str__(self) -> str:
        return f"{self.expression} ({self.zone})"

    def after(self, at: datetime) -> datetime | None:
        """The first occurrence after the given time. None if there is none within 50 years."""
        found = next(CronSim(self._five_fields, at.astimezone(self._zone)), None)
        return found and found.astimezone(UTC)

    def last_until(self, at: datetime, now: datetime) -> tuple[datetime, int]:
        """The last occurrence until now, and the number of earlier ones, if `at` is the first occurrence or a due time.

        The number is not exact if it is larger than MAX_COUNTED.
        """
        following = CronSim(self._five_fields, at.astimezone(self._zone))
        counted = [at]
        for occurrence in islice(following, MAX_COUNTED):
            if occurrence > now:
                return counted[-1].astimezone(UTC), len(counted) - 1
            counted.append(occurrence)
        last = next(CronSim(self._five_fields, now.astimezone(self._zone), reverse=True))
        return last.astimezone(UTC), len(counted) - 1

    @property
    def _five_fields(self) -> str:
        return _NICKNAMES.get(self.expression, self.expression)

    @property
    def _zone(self) -> ZoneInfo:
        return _zone(self.zone)

    def _explain(self, error: CronSimError) -> str:
        minute, hour, day, _, weekday = self._five_fields.split()
        try:
            CronSim(f"{minute} {hour} {day} * {weekday}", datetime.now(UTC))
        except CronSimError:
            return f"invalid cron expression: {str(error).replace('Bad', 'wrong')}"
        if "day-of-month" in str(error):
            return f"the cron expression never matches: its months have no day {day}"
        return f"invalid cron expression: {str(error).replace('Bad', 'wrong')}"


def _zone(name: str) -> ZoneInfo:
    try:
        if name not in _NO_ZONES:
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise InvalidZone(f"unknown time zone {name!r}: write a name such as Europe/Berlin or UTC")
