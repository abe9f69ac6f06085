"""Reads how an import is repeated or undone: JSON of the API, or a form of the console."""

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coupons.commands import Format, reasons_of
from coupons.files.format import parse_column
from coupons.store.imports import Changes
from producers.web.errors import InvalidRequest

_HEADER_CHOICES = {"yes": True, "no": False}


class _Id(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: UUID = Field(default_factory=uuid4)


class _Body(_Id):
    format: Format = Format()
    confirmed: bool = False
    allow_empty: bool = False
    reset_format: bool = False


def parse_json(body: bytes) -> tuple[UUID, Changes]:
    """Return the id of the new import and the changes of `{"id": "…", "format": {"encoding": "cp1252"}}`.

    Fields that are omitted stay as they are in the failed import. Raises InvalidRequest.
    """
    with _validation():
        return _changes(_Body.model_validate_json(body))


def parse_form(fields: Mapping[str, str]) -> tuple[UUID, Changes]:
    """Return the id of the new import and the options of a form, which shows all of them. Raises InvalidRequest."""
    with _validation():
        shown = Format(**parse_format(fields))
        options = shown.model_dump(exclude=set() if shown.as_file_format().has_columns else {"kind"})
        return parse_id(fields), Changes(options, "confirmed" in fields, "allow_empty" in fields)


def parse_json_id(body: bytes) -> UUID:
    """Return the id of the new import from `{"id": "…"}`; `{}` gives a new id. Raises InvalidRequest."""
    with _validation():
        return _Id.model_validate_json(body).id


def parse_id(fields: Mapping[str, str]) -> UUID:
    """Return the id of the new import from the field `command` of a form. Raises InvalidRequest."""
    try:
        return UUID(fields.get("command", ""))
    except ValueError:
        raise InvalidRequest("command: must be a UUID") from None


def _changes(body: _Body) -> tuple[UUID, Changes]:
    return body.id, Changes(
        body.format.model_dump(exclude_unset=True), body.confirmed, body.allow_empty, body.reset_format
    )


@contextmanager
def _validation() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise InvalidRequest("; ".join(reasons_of(error))) from None


def split_cells(text: str) -> list[str]:
    """Return the cells of a line. One that contains a comma is quoted as in a CSV file."""
    return [cell.strip() for row in csv.reader([text], skipinitialspace=True) for cell in row if cell.strip()]


def parse_format(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the format that the fields of a form describe. An empty field is omitted."""
    found = {
        "separator": "\t" if fields.get("separator") == "tab" else fields.get("separator"),
        "encoding": fields.get("encoding"),
        "column": parse_column(fields.get("column", "")),
        "header": _HEADER_CHOICES.get(fields.get("header", "")),
        "sheet": parse_column(fields.get("sheet", "")),
        "skip_lines": fields.get("skip_lines"),
        "columns": split_cells(fields.get("columns", "")),
        "where": [condition.strip() for condition in fields.get("where", "").splitlines() if condition.strip()],
        "allow_lookalikes": "allow_lookalikes" in fields or None,
        "force_encoding": "force_encoding" in fields or None,
    }
    return {name: value for name, value in found.items() if value not in (None, "", [])}
