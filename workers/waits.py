"""Continue the sendouts that wait for imports, once these imports have ended."""

from uuid import UUID

import structlog

from coupons import failpoints
from coupons.admission import Short
from coupons.database import Connection
from coupons.store import sendouts, waits
from coupons.store.sendouts import Queued, Rejected, Resumed
from workers.dead_letters import publish_dead_letters
from workers.nudges import Nudges

log = structlog.get_logger()
POLL_SECONDS = 0.5
"""How often a worker looks while a sendout waits. An import that ends in the same process wakes the role at once. An
import may also end in another process or be cancelled by an operator: polling notices this without the broker, and
without LISTEN, which PgBouncer does not support."""


async def end_waits(connection: Connection, nudges: Nudges) -> float | None:
    """Continue each sendout whose wait has ended. Return the time until the next look, or None if none is needed."""
    may_end = await waits.may_end(connection)
    if may_end:
        for sendout_id in await waits.list_ended(connection):
            await _end_wait(connection, nudges, sendout_id)
    all_published = await publish_dead_letters(connection, nudges.sender)
    return None if all_published and not may_end else POLL_SECONDS


async def _end_wait(connection: Connection, nudges: Nudges, sendout_id: UUID) -> None:
    ended = await sendouts.end_wait(connection, sendout_id)
    failpoints.hit("wait.ended")
    match ended:
        case Queued():
            log.info("sendout waited for its imports", sendout=str(sendout_id))
        case Resumed():
            log.info("sendout resumed after its imports", sendout=str(sendout_id))
            await nudges.deliver()
        case Short():
            log.warning("sendout still interrupted", sendout=str(sendout_id), reason=str(ended))
        case Rejected(reason):
            log.warning("sendout or resume rejected while it waited", sendout=str(sendout_id), reason=reason)
            await nudges.deliver()  # to cancel the deliveries of a failed sendout
