"""Find what nobody was told of: mails in a dead worker's hands, uncertain ones that the setting decides about, sendouts
whose last worker died at the end, interrupted ones that codes have come back for, uploads that nobody imported.
"""

from collections.abc import Sequence

import structlog

from coupons import failpoints
from coupons.database import Connection, Pool
from coupons.settings import Settings
from coupons.store import deliveries, imports, sendouts, uncertain, uploads
from workers.auto_resume import auto_resume
from workers.nudges import Nudges

log = structlog.get_logger()
ROLES = ("deliver", "sendout", "import")


class Sweeper:
    """Each process sweeps for its own roles, so that none needs the rights of another one (docs/reference/roles.sql).

    Everything else is found by the roles themselves: each looks for work once in a sweep interval.
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
                await uploads.drop_stale(connection)
                await imports.drop_old_rejections(connection, days=self._settings.rejected_lines_retention_days)
        return None

    async def _recover(self, connection: Connection) -> None:
        lease_seconds = self._settings.lease_seconds
        if left := await deliveries.recover(connection, owner=self._owner, lease_seconds=lease_seconds):
            log.warning("a worker died with mails in hand", uncertain=left)
            failpoints.hit("sweep.recovered")

    async def _resolve_uncertain(self, connection: Connection) -> None:
        how = self._settings.uncertain_policy
        if how != "ask" and (count := await uncertain.resolve_all(connection, how)):
            log.info("uncertain mails resolved", how=how, mails=count)

    async def _settle(self, connection: Connection) -> None:
        for sendout_id in await sendouts.settle_all(connection):
            log.info("sendout finished", sendout=str(sendout_id))
