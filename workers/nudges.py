"""Tell other workers that there is something to deliver. Only a hint: a lost one costs a sweep interval."""

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

    def through(self, sender: Sender | None) -> None:
        """The channel to publish on from now on; None while there is no broker."""
        self._sender = sender

    async def deliver(self) -> None:
        """Wake this process and others."""
        self._signals.wake("deliver")
        if self._sender is None:
            return
        try:
            await asyncio.gather(*(self._sender.send(NUDGE, _BODY) for _ in range(NUDGES)))
        except BrokerUnavailable as error:
            log.info("nobody else was nudged; the sweep will find the work", reason=str(error))
