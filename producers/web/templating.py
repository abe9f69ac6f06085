"""Renders pages from templates. Values are escaped; an undefined name is an error."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from coupons import __version__
from coupons.commands import Format
from coupons.store.schedules import RESCHEDULED_STATES
from coupons.store.sendout_views import RESUMED_STATES
from producers.durations import format_deferred, format_duration, format_limit, format_rate
from producers.local_time import to_local, zone_of
from producers.web.encodings import ACCEPTED_FILES, ENCODINGS
from producers.web.option_labels import for_console


def page(template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: object) -> HTMLResponse:
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status, headers)


def _amount(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _when(at: datetime) -> str:
    local = to_local(at)
    return f"{local:%-d %b %Y, %H:%M} {zone_of(local)}"


def _second(at: datetime) -> str:
    local = to_local(at)
    return f"{local:%-d %b %Y, %H:%M:%S} {zone_of(local)}"


def _code(text: str) -> Markup:
    """Return the text with the commands in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it is escaped


def _cells(values: Sequence[str]) -> str:
    """Return the values as a line that `split_cells` reads."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _is_same_encoding(one: str, other: str) -> bool:
    return codecs.lookup(one).name == codecs.lookup(other).name


def _is_offered(encoding: str) -> bool:
    return any(_is_same_encoding(encoding, each) for choices in ENCODINGS.values() for each in choices)


def _sentence(value: object) -> Markup:
    """Return the text as `_code` does, with a capital first letter."""
    text = str(value)
    return _code(text[:1].upper() + text[1:])


_TEMPLATES = Environment(
    loader=PackageLoader("producers.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "amount": _amount,
    "code": _code,
    "cells": _cells,
    "for_console": for_console,
    "sentence": _sentence,
    "when": _when,
    "second": _second,
    "duration": format_duration,
    "deferred": format_deferred,
    "rate": format_rate,
    "limit": format_limit,
}
_TEMPLATES.globals |= {
    "version": __version__,
    "zone": lambda: zone_of(to_local(datetime.now(UTC))),
    "rescheduled_states": RESCHEDULED_STATES,
    "resumed_states": RESUMED_STATES,
    "new_id": uuid4,
    "encodings": ENCODINGS,
    "is_same_encoding": _is_same_encoding,
    "is_offered": _is_offered,
    "default_format": Format(),
    "accepted_files": ACCEPTED_FILES,
}
