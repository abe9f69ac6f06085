"""The sendout role: prepares a queued sendout, which is then sending, interrupted or failed.

A sendout that waits for imports is prepared or resumed once they have ended.
"""

import structlog

from coupons import failpoints
from coupons.admission import Granted, Short
from coupons.database import Pool
from coupons.errors import Conflict
from coupons.lease import renewed_lease
from coupons.settings import Settings
from coupons.store import sendouts
from coupons.store.sendouts import Claim
from workers.loops import NO_PAUSE
from workers.nudges import Nudges
from workers.waits import end_waits

log = structlog.get_logger()


class Preparer:
    def __init__(self, *, pool: Pool, nudges: Nudges, settings: Settings, owner: str) -> None:
        self._pool = pool
        self._nudges = nudges
        self._settings = settings
        self._owner = owner

    async def step(self) -> float | None:
        """Prepare one sendout and return NO_PAUSE; if there is none, return the pause until the next look."""
        lease_seconds = self._settings.lease_seconds
        async with self._pool.acquire() as connection:
            pause = await end_waits(connection, self._nudges)
            claim = await sendouts.claim(connection, owner=self._owner, lease_seconds=lease_seconds)
        if claim is None:
            return pause
        failpoints.hit("sendout.claimed")
        async with renewed_lease(
            lambda: self._renew(claim), every=self._settings.heartbeat_seconds, expires_after=lease_seconds
        ):
            await self._prepare(claim)
        return NO_PAUSE

    async def _renew(self, claim: Claim) -> None:
        async with self._pool.acquire() as connection:
            await sendouts.renew(connection, claim, lease_seconds=self._settings.lease_seconds)

    async def _prepare(self, claim: Claim) -> None:
        async with self._pool.acquire() as connection:
            try:
                if claim.recipients is None:
                    await sendouts.check_recipients(connection, claim)
                    await sendouts.take_snapshot(connection, claim, batch_size=self._settings.effective_batch_size)
                failpoints.hit("sendout.prepared")
                decision = await sendouts.admit(connection, claim)
                failpoints.hit("sendout.admitted")
            except Conflict as conflict:
                await sendouts.fail(connection, claim, str(conflict))
                log.warning("sendout failed", sendout=str(claim.id), reason=str(conflict))
                await self._nudges.deliver()  # to cancel its deliveries
                return
        await self._announce(claim, decision)

    async def _announce(self, claim: Claim, decision: Granted | Short) -> None:
        match decision:
            case Short():
                log.warning("sendout interrupted", sendout=str(claim.id), reason=str(decision))
            case Granted():
                log.info("sendout sending", sendout=str(claim.id))
                await self._nudges.deliver()
