"""Sendouts that asked to resume by themselves: looked for when an import ends, and by each sweep."""

import structlog

from coupons.database import Connection
from coupons.store import sendouts
from workers.nudges import Nudges

log = structlog.get_logger()


async def resume_covered(connection: Connection, nudges: Nudges) -> None:
    """Let those go on whose lists have enough codes now."""
    if resumed := await sendouts.resume_covered(connection):
        log.info("sendouts resumed: their lists have enough codes", sendouts=list(map(str, resumed)))
        await nudges.deliver()
