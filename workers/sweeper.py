"""Find what nobody was told of: sendouts whose last worker died at the end, uploads that nobody imported."""

import structlog

from coupons.database import Pool
from coupons.store import imports, sendouts

log = structlog.get_logger()


class Sweeper:
    """Everything else is found by the roles themselves: each looks for work once in a sweep interval."""

    def __init__(self, *, pool: Pool) -> None:
        self._pool = pool

    async def step(self) -> bool:
        async with self._pool.acquire() as connection:
            for sendout_id in await sendouts.settle_all(connection):
                log.info("sendout finished", sendout=str(sendout_id))
            await imports.drop_stale_uploads(connection)
        return False
