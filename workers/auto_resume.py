"""Resume interrupted sendouts with auto-resume: when an import ends, and in each sweep."""

import structlog

from coupons.database import Connection
from coupons.store import sendouts
from workers.nudges import Nudges

log = structlog.get_logger()


async def auto_resume(connection: Connection, nudges: Nudges) -> None:
    """Resume the sendouts whose lists have enough codes now."""
    if resumed := await sendouts.auto_resume(connection):
        log.info("sendouts resumed automatically", sendouts=list(map(str, resumed)))
        await nudges.deliver()
