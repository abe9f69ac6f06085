"""The one decision about shortage: may a sendout begin, and with how many codes of each list?

It is made on amounts, with the lists' rows locked. Looking for free coupons with SKIP LOCKED instead would take codes
that another transaction holds for a shortage: two sendouts of 800 on a list of 1,000 both ended Interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coupons.states import Shortage


@dataclass(frozen=True, slots=True)
class Need:
    list_id: int
    name: str
    shortage: Shortage
    needed: int
    available: int

    @property
    def missing(self) -> int:
        return max(0, self.needed - self.available)

    def __str__(self) -> str:
        return f"list {self.name}: {self.needed} needed, {self.available} available, {self.missing} missing"


@dataclass(frozen=True, slots=True)
class Granted:
    """Codes of each list that the sendout gets: all that it needs, or what there is where a text stands in."""

    amounts: dict[int, int]


@dataclass(frozen=True, slots=True)
class Short:
    """Nothing is granted of any list; nobody is mailed."""

    needs: tuple[Need, ...]

    def __str__(self) -> str:
        return "; ".join(str(need) for need in self.needs)


def decide(needs: Sequence[Need]) -> Granted | Short:
    """All lists or none: one list that pauses the sendout and is short holds back every other."""
    short = tuple(need for need in needs if need.missing and need.shortage == Shortage.PAUSE)
    if short:
        return Short(short)
    return Granted({need.list_id: min(need.needed, need.available) for need in needs})
