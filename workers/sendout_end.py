"""Log the end of a sendout, as a warning if some of its mails were refused or are uncertain, and of its first part."""

from uuid import UUID

import structlog

from coupons.states import SendoutState
from coupons.store.sendouts import Ended

log = structlog.get_logger()


def log_first_part(sendout_id: UUID) -> None:
    log.info("first part of sendout mailed, sendout paused", sendout=str(sendout_id))


def log_end(ended: Ended) -> None:
    if ended.state == SendoutState.FINISHED and (ended.refused or ended.uncertain):
        log.warning(
            "sendout finished with refused or uncertain mails",
            sendout=str(ended.id),
            refused=ended.refused,
            uncertain=ended.uncertain,
        )
    else:
        log.info("sendout ended", sendout=str(ended.id), state=ended.state.value)
