"""Periodic work that no command starts.

A sweep recovers mails in flight of dead workers, resolves uncertain mails if the policy allows it, finishes sendouts
whose last worker died just before the end, resumes interrupted sendouts, creates the imports of recurring imports, and
deletes stale uploads, old rejections and removed codes that no undo can restore any more.
"""

from collections.abc import Sequence

import structlog

from coupons import failpoints
from coupons.database import Connection, Pool
from coupons.settings import Settings
from coupons.store import deliveries, import_schedules, imports, sendouts, uncertain, undo, uploads
from workers.auto_resume import auto_resume
from workers.nudges import Nudges
from workers.sendout_end import log_end, log_first_part

log = structlog.get_logger()
ROLES = ("deliver", "sendout", "import")


class Sweeper:
    """Sweeps once per interval. A process sweeps only for its own roles, so that no role needs the rights of another.

    docs/reference/roles.sql has these rights. All other work is found by the loops of the roles, which look for work
    once per sweep interval.
    """

    def __init__(
        self, *, pool: Pool, nudges: Nudges, settings: Settings, owner: str, roles: Sequence[str] = ROLES
    ) -> None:
        self._pool = pool
        self._nudges = nudges
        self._settings = settings
        self._owner = owner
        self._roles = roles

    async def step(self) -> float | None:
        async with self._pool.acquire() as connection:
            if "deliver" in self._roles:
                await self._recover(connection)
                await self._resolve_uncertain(connection)
                await self._settle(connection)
            if "sendout" in self._roles:
                await auto_resume(connection, self._nudges)
            if "import" in self._roles:
                await uploads.delete_stale(connection)
                await undo.delete_old(connection)
                await imports.delete_old_rejections(connection, days=self._settings.rejected_lines_retention_days)
                return await self._run_schedules(connection)
        return None

    async def _run_schedules(self, connection: Connection) -> float | None:
        """Run all schedules that are due. Return the seconds until the next one is due, None if there is none."""
        while name := await import_schedules.run_due(connection, activated=self._settings.activated):
            log.info("recurring import has run", schedule=name)
            self._nudges.run_imports()
        return await import_schedules.seconds_until_due(connection)

    async def _recover(self, connection: Connection) -> None:
        lease_seconds = self._settings.lease_seconds
        if recovered := await deliveries.recover(connection, owner=self._owner, lease_seconds=lease_seconds):
            log.warning("recovered in-flight mails of a dead worker", uncertain=recovered)
            failpoints.hit("sweep.recovered")

    async def _resolve_uncertain(self, connection: Connection) -> None:
        policy = self._settings.uncertain_policy
        if policy != "ask" and (count := await uncertain.resolve_all(connection, policy)):
            log.info("uncertain mails resolved", policy=policy, mails=count)

    async def _settle(self, connection: Connection) -> None:
        for sendout_id in await sendouts.pause_after_first(connection):
            log_first_part(sendout_id)
        for ended in await sendouts.settle_all(connection):
            log_end(ended)
