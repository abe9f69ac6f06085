"""Workers and their signs of life. Each worker has a row, which it renews while its event loop and its database work.

A worker that is killed, blocked or cut off from the database shows no life once its lease has expired. All times are
those of the database's clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from coupons.database import Connection
from coupons.store.queries import Queries

SQL = Queries("heartbeats.sql")
ROLES = ("import", "sendout", "deliver")
STALLED_SECONDS = 45.0
"""How long nothing must have moved before work is stalled: the default of COUPONS_LEASE_SECONDS."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A running worker process. The id is new for each start, because containers share host names and pids."""

    id: UUID
    host: str
    pid: int
    roles: Sequence[str]
    version: str


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that has not ended cleanly. `is_alive` is False once its lease has expired."""

    host: str
    pid: int
    roles: Sequence[str]
    version: str
    since: datetime
    last_seen: datetime
    silent_seconds: float
    """The time since `last_seen`."""
    is_alive: bool

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}"


async def enter(connection: Connection, worker: Identity, *, lease_seconds: float) -> None:
    """Show a first sign of life, and delete the rows of workers that have been dead for long.

    Also deletes the dead row of an earlier process with this host and pid, so that a container that is restarted again
    and again leaves few rows.
    """
    await connection.execute(SQL.delete_dead, worker.host, worker.pid)
    await beat(connection, worker, lease_seconds=lease_seconds)


async def beat(connection: Connection, worker: Identity, *, lease_seconds: float) -> None:
    """Show a sign of life. A deleted row is created again."""
    await connection.execute(
        SQL.beat, worker.id, worker.host, worker.pid, list(worker.roles), worker.version, lease_seconds
    )


async def leave(connection: Connection, worker: Identity) -> None:
    """Delete the row of a worker that ends cleanly."""
    await connection.execute(SQL.leave, worker.id)


async def list_workers(connection: Connection) -> list[Worker]:
    """Return the workers, those alive first. Dead ones are listed for an hour."""
    return [Worker(**row) for row in await connection.fetch(SQL.rows)]


def uncovered_roles(workers: Iterable[Worker]) -> list[str]:
    """Return the roles that no live worker has."""
    covered = {role for each in workers if each.is_alive for role in each.roles}
    return [role for role in ROLES if role not in covered]


def describe_uncovered(roles: Sequence[str]) -> str:
    """Return that no worker has these roles, and what to do."""
    *others, last = roles
    named = f"{', '.join(others)} or {last}" if others else last
    return f"no worker with the role {named} shows life; start one with `coupons worker`"


def describe_stall(role: str) -> str:
    """Return why a sendout or an import is stalled, and what to do."""
    return f"stalled: {describe_uncovered([role])}"
