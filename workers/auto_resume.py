"""Automatically resume interrupted sendouts when an import ends and in each sweep."""

import structlog

from coupons.database import Connection
from coupons.store import sendouts
from workers.nudges import Nudges

log = structlog.get_logger()


async def auto_resume(connection: Connection, nudges: Nudges) -> None:
    """Resume the interrupted sendouts that have auto-resume and whose lists now have enough codes."""
    if resumed := await sendouts.auto_resume(connection):
        log.info("sendouts resumed automatically", sendouts=list(map(str, resumed)))
        await nudges.deliver()
