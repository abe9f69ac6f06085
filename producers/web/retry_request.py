"""Reads which mails a request retries: JSON of the API, or a form of the console."""

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from coupons.addresses import parse_address
from coupons.commands import Email, reasons_of
from coupons.store.retries import Choice, Correction
from producers.web.errors import InvalidRequest


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _OldAndNew(_Strict):
    old: Email
    new: Email


class _Body(_Strict):
    refused: bool = False
    deferred: bool = False
    addresses: list[_OldAndNew] = []


def parse_json(body: bytes) -> Choice:
    """Return the choice of `{"refused": true, "deferred": true, "addresses": [{"old": "…", "new": "…"}]}`.

    Without any field, it is all refused mails. Raises InvalidRequest.
    """
    return _choice(lambda: _Body.model_validate_json(body))


def parse_form(fields: Mapping[str, str]) -> Choice:
    """Return the choice of a form: `mails` is refused or deferred, or `old` and `new` are addresses.

    Raises InvalidRequest.
    """
    match fields:
        case {"mails": "refused"}:
            return Choice(refused=True)
        case {"mails": "deferred"}:
            return Choice(deferred=True)
        case {"old": old, "new": new}:
            return _choice(lambda: _Body(addresses=[_OldAndNew(old=old, new=new)]))
    raise InvalidRequest("mails: must be refused or deferred")


def _choice(read: Callable[[], _Body]) -> Choice:
    try:
        body = read()
    except ValidationError as error:
        raise InvalidRequest("; ".join(reasons_of(error))) from None
    corrections = tuple(Correction(parse_address(each.old), parse_address(each.new)) for each in body.addresses)
    return Choice.of(refused=body.refused, deferred=body.deferred, corrections=corrections)
