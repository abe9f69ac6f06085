"""Requests for recurring imports, as the command line and the API accept them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from coupons.commands import ImportCoupons, InvalidCommand, reasons_of
from coupons.cron import Cron, InvalidCron, InvalidZone
from coupons.states import FILE_MODES, ImportMode

DEFAULT_ZONE = "UTC"
SCHEMES = ("https:", "s3:", "file:")
"""The sources that can be read again. An upload is imported once."""
_NOT_GIVEN = ("id", "type", "codes")
"""Fields of an import command that a recurring import cannot have: each of its imports has an id of its own."""


@dataclass(frozen=True, slots=True)
class RecurringImport:
    """A cron expression, and the import that is created at each of its times. The id of `command` has no meaning."""

    cron: Cron
    command: ImportCoupons

    def fields(self) -> dict[str, Any]:
        """The fields of the command that are stored."""
        return self.command.model_dump(mode="json", exclude_defaults=True, exclude={*_NOT_GIVEN})


def merge(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that changes only what is given. A group replaces a list, and a list a group."""
    replaced = {"list": "group", "group": "list"}
    kept = {name: stored[name] for name in stored if replaced.get(name) not in given}
    merged = {**kept, **given}
    if "format" in kept and "format" in given:
        merged["format"] = {**kept["format"], **given["format"]}
    return merged


def parse(fields: Mapping[str, Any]) -> RecurringImport:
    """Return the request with these fields: `cron`, `zone` and those of an import command. Raises InvalidCommand."""
    given = dict(fields)
    expression, zone = given.pop("cron", None), given.pop("zone", DEFAULT_ZONE)
    reasons = [*_check_fields(given), *_check_times(expression, zone)]
    try:
        command = ImportCoupons.model_validate({name: given[name] for name in given if name not in _NOT_GIVEN})
    except ValidationError as error:
        named = {reason.partition(":")[0] for reason in reasons}
        found = reasons_of(error)
        raise InvalidCommand([*reasons, *(each for each in found if each.partition(":")[0] not in named)]) from None
    if reasons:
        raise InvalidCommand(reasons)
    return RecurringImport(Cron(expression, zone), command)


def _check_fields(given: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{name}: unknown field" for name in _NOT_GIVEN if name in given)
    source = given.get("source")
    if isinstance(source, str) and not source.lower().startswith(SCHEMES):
        yield f"source: must begin with one of {', '.join(SCHEMES)}, because each run reads it again"
    if given.get("mode") == ImportMode.UNDO:
        yield f"mode: must be one of {', '.join(FILE_MODES)}"


def _check_times(expression: object, zone: object) -> Iterator[str]:
    if not isinstance(expression, str):
        yield "cron: required, as text"
    if not isinstance(zone, str):
        yield "zone: must be the name of a time zone"
    if isinstance(expression, str) and isinstance(zone, str):
        try:
            Cron(expression, zone)
        except InvalidZone as error:
            yield f"zone: {error}"
        except InvalidCron as error:
            yield f"cron: {error}"


def command_of(stored: Mapping[str, Any], command_id: object) -> ImportCoupons:
    """The import command of an occurrence. Raises InvalidCommand if this version does not accept it any more."""
    try:
        return ImportCoupons.model_validate({**stored, "id": command_id})
    except ValidationError as error:
        raise InvalidCommand(reasons_of(error)) from None
