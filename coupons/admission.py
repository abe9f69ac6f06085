"""Decide whether a sendout can start, and how many codes of each list it gets.

The decision uses amounts, with the rows of the lists locked. Selecting available codes with SKIP LOCKED instead would
mistake codes that another transaction locks for a shortage: two sendouts of 800 codes from a list of 1,000 were both
interrupted.
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
    """The number of codes of each list: all that are needed, or fewer if the list has an alternative text."""

    amounts: dict[int, int]


@dataclass(frozen=True, slots=True)
class Short:
    """No codes are granted of any list, and no mail is sent."""

    needs: tuple[Need, ...]

    def __str__(self) -> str:
        return "; ".join(str(need) for need in self.needs)


def decide(needs: Sequence[Need]) -> Granted | Short:
    """Grant codes of all lists or of none: one list that lacks codes and pauses the sendout is enough for none."""
    short = tuple(need for need in needs if need.missing and need.shortage == Shortage.PAUSE)
    if short:
        return Short(short)
    return Granted({need.list_id: min(need.needed, need.available) for need in needs})
