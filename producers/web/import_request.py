"""Reads how an import is repeated or undone: JSON of the API, or a form of the console."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coupons.commands import Format, reasons_of
from coupons.files.format import parse_column
from coupons.store.imports import Changes
from producers.web.errors import InvalidRequest

_HEADER_CHOICES = {"yes": True, "no": False}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: UUID = Field(default_factory=uuid4)
    format: Format = Format()
    confirmed: bool = False
    allow_empty: bool = False


def parse_json(body: bytes) -> tuple[UUID, Changes]:
    """Return the id of the new import and the changes of `{"id": "…", "format": {"encoding": "cp1252"}}`.

    Fields that are omitted stay as they are in the failed import. Raises InvalidRequest.
    """
    try:
        read = _Body.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise InvalidRequest("; ".join(reasons_of(error))) from None
    return read.id, Changes(read.format.model_dump(exclude_unset=True), read.confirmed, read.allow_empty)


def parse_form(fields: Mapping[str, str]) -> tuple[UUID, Changes]:
    """Return the id of the new import and the changes of a form. Raises InvalidRequest."""
    try:
        read = _Body.model_validate(
            {
                "id": fields.get("command") or uuid4(),
                "format": parse_format(fields),
                "confirmed": "confirmed" in fields,
                "allow_empty": "allow_empty" in fields,
            }
        )
    except ValidationError as error:
        raise InvalidRequest("; ".join(reasons_of(error))) from None
    return read.id, Changes(read.format.model_dump(exclude_unset=True), read.confirmed, read.allow_empty)


def parse_format(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the format that the fields of a form describe. An empty field is omitted."""
    found = {
        "separator": "\t" if fields.get("separator") == "tab" else fields.get("separator"),
        "encoding": fields.get("encoding"),
        "column": parse_column(fields.get("column", "")),
        "header": _HEADER_CHOICES.get(fields.get("header", "")),
        "sheet": parse_column(fields.get("sheet", "")),
        "skip_lines": fields.get("skip_lines"),
        "columns": [name.strip() for name in fields.get("columns", "").split(",") if name.strip()],
        "where": [condition.strip() for condition in fields.get("where", "").splitlines() if condition.strip()],
        "allow_lookalikes": "allow_lookalikes" in fields or None,
        "force_encoding": "force_encoding" in fields or None,
    }
    return {name: value for name, value in found.items() if value not in (None, "", [])}
