"""Find what nobody was told of: sendouts whose last worker died at the end, uploads that nobody imported, and uncertain
mails, where the setting says what becomes of them.
"""

import structlog

from coupons.database import Pool
from coupons.settings import Settings
from coupons.store import imports, sendouts, uncertain

log = structlog.get_logger()


class Sweeper:
    """Everything else is found by the roles themselves: each looks for work once in a sweep interval."""

    def __init__(self, *, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._uncertain = settings.uncertain

    async def step(self) -> float | None:
        async with self._pool.acquire() as connection:
            if self._uncertain != "ask" and (count := await uncertain.resolve_all(connection, self._uncertain)):
                log.info("uncertain mails resolved", how=self._uncertain, mails=count)
            for sendout_id in await sendouts.settle_all(connection):
                log.info("sendout finished", sendout=str(sendout_id))
            await imports.drop_stale_uploads(connection)
        return None
