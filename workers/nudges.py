"""Nudge other workers when there is something to deliver. A nudge is only a hint: a lost one costs a sweep interval."""

import asyncio
import json

import structlog

from coupons.broker import BrokerUnavailable, Sender
from coupons.topology import NUDGE
from workers.loops import Signals

log = structlog.get_logger()
NUDGES = 8
"""A nudge wakes one worker; a sendout is worth waking several."""
_BODY = json.dumps({"type": NUDGE}).encode()


class Nudges:
    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._sender: Sender | None = None

    def use(self, sender: Sender | None) -> None:
        """Publish with this sender from now on; None while the broker is unavailable."""
        self._sender = sender

    async def deliver(self) -> None:
        """Wake the deliver role of this process and of others."""
        self._signals.wake("deliver")
        if self._sender is None:
            return
        try:
            await asyncio.gather(*(self._sender.send(NUDGE, _BODY) for _ in range(NUDGES)))
        except BrokerUnavailable as error:
            log.info("could not wake other workers; the next sweep will pick it up", reason=str(error))
