"""The SQL statements of one `.sql` file, by name.

Each block begins with the line `-- name: purpose`. The module next to the file runs its statement as `SQL.name`.
"""

import re
from collections.abc import Iterator
from importlib.resources import files

_BLOCK = re.compile(r"^-- ([a-z_]+): (.*)\n", re.MULTILINE)


class Queries:
    """`SQL.name` is the statement. `SQL.purposes["name"]` is the purpose from its first line."""

    def __init__(self, file: str) -> None:
        text = files("coupons").joinpath("store", file).read_text(encoding="utf-8")
        _, *pieces = _BLOCK.split(text)
        names, purposes, statements = pieces[::3], pieces[1::3], (sql.strip() for sql in pieces[2::3])
        self._blocks: dict[str, str] = dict(zip(names, statements, strict=True))
        self.purposes = dict(zip(names, purposes, strict=True))

    def __getattr__(self, name: str) -> str:
        try:
            return self._blocks[name]
        except KeyError:
            raise AttributeError(name) from None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._blocks.items())
