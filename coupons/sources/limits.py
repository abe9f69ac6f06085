"""What may be imported from where, and how much of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coupons.settings import Settings, SettingsError
from coupons.sources.source import PIECE_BYTES, SourceError

_HOST = re.compile(r"([^\W_][\w.-]*|\[[0-9a-f:.]+\])(:\d+)?").fullmatch


@dataclass(frozen=True, slots=True)
class Rules:
    """`hosts` are `host` (port 443) or `host:port` in lower case; `private_hosts` lets them be in a local network.

    `max_bytes` is for a source and again for what it unpacks to; `max_ratio` is the most of unpacked to packed.
    """

    folder: Path | None
    hosts: frozenset[str]
    private_hosts: bool
    buckets: frozenset[str]
    max_bytes: int
    max_ratio: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises SettingsError for a host that cannot be one, such as a URL."""
        hosts = _listed(settings.import_hosts.lower())
        for host in hosts:
            if not _HOST(host):
                raise SettingsError("COUPONS_IMPORT_HOSTS: write only hosts, shop.example or shop.example:8443")
        return cls(
            folder=settings.import_folder,
            hosts=hosts,
            private_hosts=settings.import_private_hosts,
            buckets=_listed(settings.import_buckets),
            max_bytes=settings.import_max_bytes,
            max_ratio=settings.import_max_ratio,
        )

    def check_size(self, name: str, size: int) -> None:
        """Raises SourceError for a source that is too large."""
        if size > self.max_bytes:
            raise SourceError(f"{name} has {size} bytes, at most {self.max_bytes} are taken (COUPONS_IMPORT_MAX_BYTES)")

    def check_unpacked(self, name: str, *, unpacked: int, packed: int) -> None:
        """Raises SourceError if too much comes of so many bytes of a source.

        The ratio counts from the second piece on: a short text of one repeated line is no bomb.
        """
        if unpacked > self.max_bytes:
            raise SourceError(
                f"{name} has more than {self.max_bytes} bytes when unpacked, that many are taken"
                " (COUPONS_IMPORT_MAX_BYTES)"
            )
        if unpacked > PIECE_BYTES and unpacked > packed * self.max_ratio:
            raise SourceError(
                f"{name} unpacks to more than {self.max_ratio} times its size: send it unpacked, if it is in order"
                " (COUPONS_IMPORT_MAX_RATIO)"
            )


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())
