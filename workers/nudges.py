"""Nudge other workers when there are mails to deliver. A nudge is only a hint: if it is lost, the next sweep finds the
mails.
"""

import asyncio
import json

import structlog

from coupons.broker import BrokerUnavailable, Sender
from coupons.topology import NUDGE
from workers.loops import Signals

log = structlog.get_logger()
NUDGES = 8
"""The number of nudges for a sendout. Each nudge wakes one worker, and several workers deliver a sendout."""
_BODY = json.dumps({"type": NUDGE}).encode()


class Nudges:
    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._sender: Sender | None = None

    def use(self, sender: Sender | None) -> None:
        """Publish with this sender from now on; None while the broker is unavailable."""
        self._sender = sender

    @property
    def sender(self) -> Sender | None:
        """The sender of this process; None while the broker is unavailable."""
        return self._sender

    def run_imports(self) -> None:
        """Wake the import role of this process."""
        self._signals.wake("import")

    async def deliver(self) -> None:
        """Wake the deliver role of this process and of others."""
        self._signals.wake("deliver")
        if self._sender is None:
            return
        try:
            await asyncio.gather(*(self._sender.send(NUDGE, _BODY) for _ in range(NUDGES)))
        except BrokerUnavailable as error:
            log.info("could not wake other workers; they find the work in their next sweep", reason=str(error))
