"""The URLs of the database, the broker and the relays. They contain passwords, and libraries quote them in errors.

A password may contain any character. Without percent-encoding, `/`, `?` and `#` end the part of a URL that has the
password, so the rest would be read as a host, a port, a path or an option, and shown in errors as such.
"""

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote

from coupons.errors import UserError

MAX_PORT = 65_535

_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\s\[\]:@\\]*)(?::([0-9]{0,5}))?")


class InvalidUrl(UserError, ValueError):
    """The URL is not valid. The text has no part of the URL."""

    def __init__(self, form: str) -> None:
        """`form` is a sentence with the setting and an example."""
        super().__init__(
            f"{form}: percent-encode special characters in user and password"
            " (/ is %2F, ? is %3F, # is %23, @ is %40, a comma is %2C)"
        )


@dataclass(frozen=True, slots=True)
class ServiceUrl:
    """A URL whose parts are known to be what they seem. `str` is the URL with user and password percent-encoded."""

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    hosts: str
    """Host and port as in the URL, or several of them, separated by commas."""
    rest: str = field(repr=False)
    """Path and query."""

    @classmethod
    def parse(cls, url: str, *, schemes: tuple[str, ...], form: str) -> Self:
        """Parse a URL. User and password end at the last `@` before the path.

        So they may contain `@`, `:`, `%`, `[` and `]` as they are. An `@` in path or query must be percent-encoded,
        because it is the sign of a password with `/` or `?`.

        Raises InvalidUrl.
        """
        scheme, _, after = url.strip().partition("://")
        authority = re.split("[/?#]", after, maxsplit=1)[0]
        rest = after[len(authority) :]
        credentials, at, hosts = authority.rpartition("@")
        if scheme.lower() not in schemes or "@" in rest or "#" in rest or not all(map(_is_host, hosts.split(","))):
            raise InvalidUrl(form)
        user, colon, password = credentials.partition(":")
        return cls(scheme.lower(), unquote(user) if at else None, unquote(password) if colon else None, hosts, rest)

    @property
    def host_and_port(self) -> tuple[str, int | None]:
        """The first host in lower case, without brackets, and its port."""
        first = self.hosts.partition(",")[0]
        found = _HOST_AND_PORT.fullmatch(first)
        port = found[1] if found else None
        host = first.removesuffix(f":{port}") if port else first.removesuffix(":")
        return host.strip("[]").lower(), int(port) if port else None

    def __str__(self) -> str:
        user = "" if self.user is None else quote(self.user, safe="")
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        return f"{self.scheme}://{user}{password}{'' if self.user is None else '@'}{self.hosts}{self.rest}"


def _is_host(text: str) -> bool:
    found = _HOST_AND_PORT.fullmatch(text)
    return found is not None and int(found[1] or 0) <= MAX_PORT


def parse_database_url(url: str) -> ServiceUrl:
    """Parse COUPONS_DATABASE_URL. Raises InvalidUrl."""
    form = "COUPONS_DATABASE_URL: the database URL must look like postgresql://user:password@host:5432/database"
    return ServiceUrl.parse(url, schemes=("postgresql", "postgres"), form=form)


def parse_broker_url(url: str) -> ServiceUrl:
    """Parse COUPONS_BROKER_URL. Raises InvalidUrl."""
    form = "COUPONS_BROKER_URL: the broker URL must look like amqp://user:password@host:5672/"
    return ServiceUrl.parse(url, schemes=("amqp", "amqps"), form=form)
