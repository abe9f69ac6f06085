"""A change of a sendout's start or pace, as the command line, the HTTP API and the console request it."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coupons.commands import OverMinutes, PerHour, StartAt


class Reschedule(BaseModel):
    """At most one of `start_at` and `now`, at most one of the others, and at least one of all."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    start_at: StartAt | None = None
    now: bool = Field(False, strict=True)
    per_hour: PerHour | None = None
    over_minutes: OverMinutes | None = None
    no_limit: bool = Field(False, strict=True)

    @model_validator(mode="after")
    def _is_one_change(self) -> Self:
        starts = [self.start_at is not None, self.now]
        paces = [self.per_hour is not None, self.over_minutes is not None, self.no_limit]
        if sum(starts) > 1:
            raise ValueError("start_at and now cannot be combined")
        if sum(paces) > 1:
            raise ValueError("per_hour, over_minutes and no_limit cannot be combined")
        if not any(starts + paces):
            raise ValueError("at least one of start_at, now, per_hour, over_minutes and no_limit is required")
        return self

    @property
    def changes_pace(self) -> bool:
        return self.no_limit or self.per_hour is not None or self.over_minutes is not None

    def pace(self, remaining: int) -> float | None:
        """Return the new limit in mails per hour for the remaining mails; None for no limit."""
        if self.over_minutes is not None:
            return max(remaining, 1) * 60 / self.over_minutes
        return None if self.per_hour is None else float(self.per_hour)
