"""Admission: decide whether a sendout can start, and how many codes of each list are reserved for it.

The decision compares amounts while the rows of the lists are locked. Selecting available codes with SKIP LOCKED instead
would skip codes that another transaction has locked, and report a shortage. In a test, two sendouts of 800 codes each
from a list of 1,000 were then both interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coupons.states import Shortage


@dataclass(frozen=True, slots=True)
class Need:
    """The codes that a sendout needs of one list, and the codes that the list has available."""

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
class Unprintable:
    """A list whose alternative text prints attributes that some recipients lack."""

    list_id: int
    name: str
    attributes: tuple[str, ...]
    recipients: int

    def __str__(self) -> str:
        lack = "1 recipient lacks" if self.recipients == 1 else f"{self.recipients} recipients lack"
        return (
            f"list {self.name}: {lack} an attribute that the alternative text prints ({', '.join(self.attributes)}): "
            "change the text"
        )


@dataclass(frozen=True, slots=True)
class Granted:
    """The number of codes to reserve of each list: all needed codes, or fewer if the list has an alternative text."""

    amounts: dict[int, int]


@dataclass(frozen=True, slots=True)
class Short:
    """Lists lack codes, or a text that can replace them. No code of any list is reserved, and no mail is sent."""

    problems: tuple[Need | Unprintable, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.problems))


def decide(needs: Sequence[Need]) -> Granted | Short:
    """Grant codes of all lists or of none: of none if one list lacks codes and its shortage setting is `pause`."""
    short = tuple(need for need in needs if need.missing and need.shortage == Shortage.PAUSE)
    if short:
        return Short(short)
    return Granted({need.list_id: min(need.needed, need.available) for need in needs})
