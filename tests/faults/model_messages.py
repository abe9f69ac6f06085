"""The messages of the model: which lists a mail prints a code of, for recipients of each tier."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from coupons.templates.rendering import Parts

TIERS = ("gold", "basic")
FIRST_LINE = "Your codes"

People = Mapping[str, str]
"""Addresses with their tiers."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message with a code of each list. By tier, only gold recipients get one of the first list, and others do not
    get one of the other lists.
    """

    lists: tuple[str, ...]
    by_tier: bool = False

    @classmethod
    def of(cls, lists: Collection[str], *, by_tier: bool = False) -> Self:
        return cls(tuple(sorted(lists)), by_tier)

    @classmethod
    def named(cls, name: str) -> Self:
        kind, *lists = name.split("-")
        return cls(tuple(lists), by_tier=kind == "tier")

    @property
    def name(self) -> str:
        return "-".join(["tier" if self.by_tier else "all", *self.lists])

    @property
    def parts(self) -> Parts:
        text = "".join(map(_line, self.lists))
        if self.by_tier:
            first, others = _line(self.lists[0]), "".join(map(_line, self.lists[1:]))
            text = f'{{% if tier == "gold" %}}{first}{{% else %}}{others}{{% endif %}}'
        return Parts(subject="For you", text=f"{FIRST_LINE}\n{text}", html=None)

    def printed(self, tier: str | None) -> tuple[str, ...]:
        """The lists that the mail to a recipient of this tier prints."""
        if not self.by_tier:
            return self.lists
        return self.lists[:1] if tier == "gold" else self.lists[1:]


def _line(name: str) -> str:
    return f'{name}={{{{ coupon("{name}") }}}}\n'
