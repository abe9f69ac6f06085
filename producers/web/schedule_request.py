"""Reads how a request reschedules a sendout: JSON of the API, or a form of the console."""

from collections.abc import Callable, Mapping

from pydantic import ValidationError

from coupons.commands import MAX_MINUTES, MAX_PER_HOUR, reasons_of
from coupons.schedule import Reschedule
from producers.durations import describe_invalid_minutes, parse_minutes
from producers.local_time import InvalidTime, local_zone, parse_time
from producers.web.errors import InvalidRequest


def parse_json(body: bytes) -> Reschedule:
    """Return the change of a body like `{"start_at": "2027-03-01T09:00+01:00", "per_hour": 5000}`.

    Raises InvalidRequest.
    """
    return _checked(lambda: Reschedule.model_validate_json(body))


def parse_form(fields: Mapping[str, str]) -> Reschedule:
    """Return the change of a form: a button `now`, a local time `start_at`, or a `pace` and its `amount`.

    Raises InvalidRequest.
    """
    match fields:
        case {"start": "now"}:
            return Reschedule(now=True)
        case {"start_at": text}:
            try:
                start_at = parse_time(text, local_zone())
            except InvalidTime as error:
                raise InvalidRequest(f"start_at: {error}") from None
            return _checked(lambda: Reschedule(start_at=start_at))
        case {"pace": "none"}:
            return Reschedule(no_limit=True)
        case {"pace": "per_hour", "amount": amount}:
            mails = int(amount) if amount.isascii() and amount.isdigit() and len(amount) < 20 else 0
            if not 1 <= mails <= MAX_PER_HOUR:
                raise InvalidRequest(f"{amount!r} is not a number of mails from 1 to {MAX_PER_HOUR:,}")
            return Reschedule(per_hour=mails)
        case {"pace": "over", "amount": amount}:
            minutes = parse_minutes(amount) or 0
            if not 1 <= minutes <= MAX_MINUTES:
                raise InvalidRequest(describe_invalid_minutes(amount, MAX_MINUTES))
            return Reschedule(over_minutes=minutes)
    raise InvalidRequest("give a start time or a pace")


def _checked(read: Callable[[], Reschedule]) -> Reschedule:
    try:
        return read()
    except ValidationError as error:
        raise InvalidRequest("; ".join(reasons_of(error))) from None
