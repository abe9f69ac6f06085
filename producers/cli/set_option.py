"""`coupons send --to … --set NAME=VALUE`: attributes of recipients that are given on the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from producers.cli.runtime import Failed


def parse_values(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return the attributes by name. Raises click.BadParameter."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if problem := _problem(name, equals, values):
            raise click.BadParameter(f"{pair!r} {problem}", param_hint="--set")
        values[name] = value
    return values


def _problem(name: str, equals: str, known: dict[str, str]) -> str | None:
    from coupons.attributes import RESERVED, is_attribute_name
    from coupons.store.groups import OWN_ATTRIBUTES

    if not equals:
        return "must be NAME=VALUE, as first_name=Ada"
    if name in OWN_ATTRIBUTES:
        return "is not needed: the address of --to is the email"
    if not is_attribute_name(name) or name in RESERVED:
        return "has no attribute name: write lower-case letters, digits and _, as first_name=Ada"
    return f"gives {name} a second time" if name in known else None


@contextmanager
def naming_the_remedy() -> Iterator[None]:
    """Add the options that set the attributes that a recipient lacks to the error."""
    from coupons.store.sendouts import LackingAttributes

    try:
        yield
    except LackingAttributes as error:
        options = " ".join(f"--set {name}=VALUE" for name in error.attributes)
        raise Failed(f"{error}; add {options}") from None
