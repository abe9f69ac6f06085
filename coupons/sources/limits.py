"""Limits for sources: allowed folder, hosts and buckets, and maximum sizes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coupons.settings import Settings, SettingsError
from coupons.sources.source import PIECE_BYTES, SourceError

_HOST = re.compile(r"([^\W_][\w.-]*|\[[0-9a-f:.]+\])(:\d+)?").fullmatch


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """The limits for sources.

    `hosts` contains `host` (port 443) or `host:port` in lower case. `private_hosts` allows hosts in a local network.
    `max_bytes` limits a source, and its decompressed text as well. `max_ratio` is the maximum compression ratio.
    """

    folder: Path | None
    hosts: frozenset[str]
    private_hosts: bool
    buckets: frozenset[str]
    max_bytes: int
    max_ratio: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The limits in the settings. Raises SettingsError if COUPONS_IMPORT_HOSTS has an entry that is not a host."""
        hosts = _split(settings.import_hosts.lower())
        for host in hosts:
            if not _HOST(host):
                raise SettingsError("COUPONS_IMPORT_HOSTS: list hosts only, such as shop.example or shop.example:8443")
        return cls(
            folder=settings.import_folder,
            hosts=hosts,
            private_hosts=settings.import_private_hosts,
            buckets=_split(settings.import_buckets),
            max_bytes=settings.import_max_bytes,
            max_ratio=settings.import_max_ratio,
        )

    def check_size(self, name: str, size: int) -> None:
        """Check the size of a source. Raises SourceError if it is above the limit."""
        if size > self.max_bytes:
            raise SourceError(f"{name}: {size} bytes exceed the limit of {self.max_bytes} (COUPONS_IMPORT_MAX_BYTES)")

    def check_decompressed(self, name: str, *, size: int, source_bytes: int) -> None:
        """Check decompressed text. Raises SourceError if `source_bytes` of a source decompress to more than the limits.

        The ratio is limited only for a text of more than one piece: a short text of one repeated line is harmless.
        """
        if size > self.max_bytes:
            raise SourceError(
                f"{name} exceeds the limit of {self.max_bytes} bytes when decompressed (COUPONS_IMPORT_MAX_BYTES)"
            )
        if size > PIECE_BYTES and size > source_bytes * self.max_ratio:
            raise SourceError(
                f"{name} decompresses to more than {self.max_ratio} times its size; if this is correct, send it"
                " uncompressed (COUPONS_IMPORT_MAX_RATIO)"
            )


def _split(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())
