"""Finds sendouts and imports by the first characters of their ids."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.store.queries import Queries

SQL = Queries("job_ids.sql")
MIN_CHARS = 4
DIGITS = 32
CANDIDATES_SHOWN = 5
Kind = Literal["sendout", "import"]

_is_hexadecimal = re.compile(rf"[0-9a-f]{{{MIN_CHARS},{DIGITS}}}").fullmatch


@dataclass(frozen=True, slots=True)
class Job:
    """A sendout or an import, with a name that helps to recognize it."""

    id: UUID
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.id} ({self.kind} {self.name})"


def parse_prefix(text: str) -> str | None:
    """Return the digits of the beginning of an id, without dashes. None if the text cannot be one."""
    digits = text.strip().lower().replace("-", "")
    return digits if _is_hexadecimal(digits) else None


async def get(connection: Connection, prefix: str, kinds: Collection[Kind]) -> UUID:
    """Return the id that begins with these digits. Raises Conflict if there is none, or more than one."""
    least, most = UUID(prefix.ljust(DIGITS, "0")), UUID(prefix.ljust(DIGITS, "f"))
    rows = await connection.fetch(SQL.find, list(kinds), least, most, CANDIDATES_SHOWN + 1)
    match [Job(**row) for row in rows]:
        case []:
            raise Conflict(f"there is no {' or '.join(kinds)} whose id begins with {prefix}")
        case [job]:
            return job.id
        case several:
            shown = ", ".join(map(str, several[:CANDIDATES_SHOWN]))
            more = " and others" * (len(several) > CANDIDATES_SHOWN)
            raise Conflict(f"several ids begin with {prefix}, give more characters: {shown}{more}")
