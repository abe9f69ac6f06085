"""The address of a relay, and whether TLS is used."""

import re
import ssl
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Self
from urllib.parse import parse_qs

from coupons.errors import UserError
from coupons.foreign_errors import describe
from coupons.service_url import InvalidUrl, ServiceUrl


class SmtpAddressError(UserError):
    """A relay cannot be used as its URL says. The text contains neither the password nor the URL."""


class Tls(Enum):
    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


_FORM = "COUPONS_SMTP_URL: each relay URL must look like smtp://user:password@host:587"
_PORTS = {Tls.NONE: 25, Tls.STARTTLS: 587, Tls.IMPLICIT: 465}


@dataclass(frozen=True, slots=True)
class SmtpAddress:
    host: str
    port: int
    tls: Tls
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    weight: int = 1
    """The relay's share of the connections, relative to the other relays."""

    @property
    def name(self) -> str:
        """Host and port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse_all(cls, urls: str) -> tuple[Self, ...]:
        """Parse one or several URLs, separated by spaces or commas. In passwords, both are percent-encoded.

        Raises InvalidUrl, SmtpAddressError.
        """
        return tuple(cls.parse(url) for url in re.split(r"[\s,]+", urls.strip(" \t\r\n,")))

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse `smtp://user:password@host:587?tls=starttls|none&ca=FILE&weight=2` or `smtps://host:465?ca=FILE`.

        TLS is required unless the host is loopback or the URL has `tls=none`. With TLS, the server's certificate is
        verified against the authorities in the `ca` file, by default those of the system. A password is sent without
        TLS only to loopback. Special characters in user and password are percent-encoded.

        Raises InvalidUrl, SmtpAddressError.
        """
        parts = ServiceUrl.parse(url, schemes=("smtp", "smtps"), form=_FORM)
        host, port = parts.host_and_port
        options = _options(parts.rest)
        if not host or options is None:
            raise InvalidUrl(_FORM)
        if unknown := options.keys() - {"tls", "ca", "weight"}:
            raise SmtpAddressError(f"the relay URL has unknown options: {', '.join(sorted(unknown))}")
        tls = _tls(parts.scheme, host, options.get("tls", ""))
        if parts.user and tls is Tls.NONE and not _is_loopback(host):
            raise SmtpAddressError(f"the password for {host} would be sent in clear: remove tls=none")
        return cls(
            host=host,
            port=port or _PORTS[tls],
            tls=tls,
            username=parts.user or None,
            password=parts.password or None,
            ca_file=options.get("ca"),
            weight=_weight(options.get("weight", "1")),
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a context that verifies the relay's certificate and name, or None. Raises SmtpAddressError."""
        if self.tls is Tls.NONE:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise SmtpAddressError(f"the certificates in {self.ca_file} cannot be read: {describe(error)}") from error


def _options(rest: str) -> dict[str, str] | None:
    """Return the options after the host, or None if they are invalid."""
    path, _, query = rest.partition("?")
    try:
        options = parse_qs(query, keep_blank_values=True, strict_parsing=True) if query else {}
    except ValueError:
        return None
    return None if path.strip("/") else {name: values[-1] for name, values in options.items()}


def _tls(scheme: str, host: str, option: str) -> Tls:
    match scheme, option:
        case "smtps", "":
            return Tls.IMPLICIT
        case "smtp", "":
            return Tls.NONE if _is_loopback(host) else Tls.STARTTLS
        case "smtp", "none" | "starttls":
            return Tls(option)
    raise SmtpAddressError("the relay URL allows tls=starttls or tls=none with smtp:, and no tls option with smtps:")


def _weight(option: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{0,2}", option):
        return int(option)
    raise SmtpAddressError("the weight in the relay URL must be a whole number from 1 to 999")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
