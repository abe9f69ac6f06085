"""Create logins with the roles of docs/reference/roles.sql, as an operator does."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

ROLES_SQL = (Path(__file__).parents[1] / "docs/reference/roles.sql").read_text(encoding="utf-8")


class Logins:
    """Logins for one database."""

    def __init__(self, owner: "asyncpg.Connection[asyncpg.Record]", url: str) -> None:
        self._owner = owner
        self._url = urlsplit(url)
        self._names: list[str] = []

    async def of(self, *roles: str) -> str:
        """Create a login that is a member of these roles; return the database's URL with this login."""
        name, password = f"coupons_test_{secrets.token_hex(6)}", secrets.token_hex(12)
        await self._owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {', '.join(roles)}")
        self._names.append(name)
        host = self._url.netloc.rpartition("@")[2]
        return self._url._replace(netloc=f"{name}:{password}@{host}").geturl()

    async def drop(self) -> None:
        for name in self._names:
            await self._owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@asynccontextmanager
async def logins_to(database_url: str) -> AsyncIterator[Logins]:
    """Grant the roles their rights in the database. At the end the logins are dropped; the roles stay on the server."""
    owner = await asyncpg.connect(database_url)
    logins = Logins(owner, database_url)
    try:
        await owner.execute(ROLES_SQL)
        yield logins
    finally:
        await logins.drop()
        await owner.close()
