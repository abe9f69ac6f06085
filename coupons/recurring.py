"""Requests for recurring imports, as the command line and the API accept them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from coupons.commands import ImportCoupons, InvalidCommand, reasons_of
from coupons.cron import Cron, InvalidCron

DEFAULT_ZONE = "UTC"
_NOT_GIVEN = ("id", "type", "codes")
"""Fields of an import command that a recurring import cannot have: each of its imports has an id of its own."""


@dataclass(frozen=True, slots=True)
class RecurringImport:
    """A time table, and the import that is created at each of its times. The id of `command` has no meaning."""

    cron: Cron
    command: ImportCoupons

    def fields(self) -> dict[str, Any]:
        """The fields of the command that are stored."""
        return self.command.model_dump(mode="json", exclude_defaults=True, exclude={*_NOT_GIVEN})


def parse(fields: Mapping[str, Any]) -> RecurringImport:
    """Return the request with these fields: `cron`, `zone` and those of an import command. Raises InvalidCommand."""
    given = dict(fields)
    expression, zone = given.pop("cron", None), given.pop("zone", DEFAULT_ZONE)
    reasons = [f"{name}: unknown field" for name in _NOT_GIVEN if name in given]
    if not isinstance(expression, str) or not isinstance(zone, str):
        raise InvalidCommand([*reasons, "cron: required, as text; zone: a name, as text"])
    try:
        cron = Cron(expression, zone)
        command = ImportCoupons.model_validate({name: given[name] for name in given if name not in _NOT_GIVEN})
    except ValidationError as error:
        raise InvalidCommand([*reasons, *reasons_of(error)]) from None
    except InvalidCron as error:
        raise InvalidCommand([*reasons, f"cron: {error}"]) from None
    if (command.source or "").startswith("upload:"):
        reasons.append("source: an upload is imported once; a recurring import needs https:, s3: or file:")
    if reasons:
        raise InvalidCommand(reasons)
    return RecurringImport(cron, command)


def command_of(stored: Mapping[str, Any], command_id: object) -> ImportCoupons:
    """The import command of an occurrence. Raises InvalidCommand if this version does not accept it any more."""
    try:
        return ImportCoupons.model_validate({**stored, "id": command_id})
    except ValidationError as error:
        raise InvalidCommand(reasons_of(error)) from None
