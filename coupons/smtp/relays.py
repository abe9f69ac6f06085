"""All relays, and one queue of mails for them: whichever has a free connection takes the next mail."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from types import TracebackType
from typing import Self

from coupons.mail import Envelope
from coupons.smtp.address import SmtpAddress
from coupons.smtp.connect import OpeningError
from coupons.smtp.connection import Timeouts
from coupons.smtp.outcomes import SHUTTING_DOWN, Outcome, Unreachable
from coupons.smtp.queue import Mail, Waiting
from coupons.smtp.relay import Kind, Limits, Relay

_LOAD = attrgetter("load")


@dataclass(frozen=True, slots=True)
class Outage:
    """No relay can be used. `since` when, in UTC, and in how many seconds one will be tried again."""

    reason: str
    since: datetime
    retry_seconds: float


class Relays:
    """Every mail that is handed over is reported exactly once, whatever happens.

    A report may hand over more mails. It is never called while a connection is in the middle of something.
    """

    def __init__(
        self,
        addresses: Sequence[SmtpAddress],
        *,
        limits: Limits = Limits(),  # noqa: B008 a frozen value
        local_hostname: str | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 a frozen value
        closing_seconds: float = 10,
    ) -> None:
        """`local_hostname`: said in EHLO, by default this machine's.

        `closing_seconds` are given to mails in flight when the relays are left.

        Raises SmtpAddressError: certificates cannot be read, or the hostname cannot be said.
        """
        self._waiting = Waiting()
        self._closing_seconds = closing_seconds
        self._dispatching = False
        self._relays = [
            Relay(
                address,
                share=share,
                waiting=self._waiting,
                changed=self._dispatch,
                others=self._others,
                limits=limits,
                timeouts=timeouts,
                local_hostname=local_hostname,
            )
            for address, share in zip(addresses, shares(addresses, limits.connections), strict=True)
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hand back what is waiting, give what is in flight a moment, then interrupt it."""
        self._waiting.close()
        for relay in self._relays:
            relay.leave()
        self._waiting.tell()
        try:
            async with asyncio.timeout(self._closing_seconds):
                await self._gone()
        except TimeoutError:
            pass
        finally:
            for relay in self._relays:
                relay.stop(SHUTTING_DOWN.explanation)
            self._waiting.tell()
        await self._gone()
        if self._waiting.surprise is not None and error is None:
            raise self._waiting.surprise

    def submit(
        self,
        envelope: Envelope,
        report: Callable[[Outcome], None],
        owner: object = None,
        deadline: float | None = None,
    ) -> None:
        """Queue the mail; the next free connection sends it, and `report` is called with its outcome.

        `owner` identifies the mail's owner to `cancel_for`. The mail is never sent after `deadline`, a time of the
        running loop: then it is reported as `Unreachable` with the cause DEADLINE when its turn comes.
        """
        self._waiting.add(Mail(envelope, report, owner, math.inf if deadline is None else deadline))
        self._dispatch()
        self._waiting.tell()

    def cancel_for(self, owner: object) -> None:
        """Report every queued mail of this owner as `Unreachable` with the cause CANCELLED."""
        self._waiting.cancel_for(owner)
        self._waiting.tell()

    def cancel_queued(self) -> None:
        """Report every queued mail as `Unreachable` with the cause SHUTDOWN."""
        self._waiting.give_up(SHUTTING_DOWN)
        self._waiting.tell()

    async def send(self, envelope: Envelope) -> Outcome:
        """Submit one mail and wait for its outcome."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(envelope, lambda outcome: None if done.done() else done.set_result(outcome))
        return await done

    async def check(self) -> Unreachable | None:
        """Connect and authenticate to every relay, without sending mail. Returns the first failure."""
        for relay in self._relays:
            try:
                await relay.check()
            except OpeningError as error:
                return Unreachable(f"relay {relay.name}: {error}")
        return None

    @property
    def outage(self) -> Outage | None:
        """Why no mail can be sent now; None: it can, or may be tried."""
        troubles = [relay.trouble for relay in self._relays if relay.is_out and relay.trouble is not None]
        if len(troubles) < len(self._relays):
            return None
        return Outage(
            reason="; ".join(
                f"relay {relay.name} {trouble.kind.value} since {trouble.since:%H:%M} UTC: {trouble.reason}"
                for relay, trouble in zip(self._relays, troubles, strict=True)
            ),
            since=max(trouble.since for trouble in troubles),
            retry_seconds=min(relay.retry_seconds for relay in self._relays),
        )

    def stalled_owners(self) -> list[object]:
        """The owner of each mail on a stalled connection; an owner of several mails is listed once per mail."""
        return [mail.owner for relay in self._relays for mail in relay.silent]

    @property
    def not_pipelined(self) -> dict[str, str]:
        """The relays (host and port) that offer PIPELINING and violate it, and how each violation was noticed."""
        return {relay.name: relay.not_pipelined for relay in self._relays if relay.not_pipelined is not None}

    async def _gone(self) -> None:
        for relay in self._relays:
            await relay.gone()

    def _dispatch(self) -> None:
        """Bring waiting mails and connections together."""
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._waiting and self._dispatch_one():
                pass
        finally:
            self._dispatching = False
        if self._waiting and (outage := self._settled_outage()):
            self._waiting.give_up(Unreachable(outage.reason))

    def _dispatch_one(self) -> bool:
        """Put one more connection to work, or open one; no more than there are mails for."""
        if idle := [relay for relay in self._relays if relay.idle]:
            min(idle, key=_LOAD).work()
            return True
        ready = [relay for relay in self._relays if relay.may_open]
        if not ready or sum(relay.opening for relay in self._relays) >= len(self._waiting):
            return False
        min(ready, key=_LOAD).open()
        return True

    def _settled_outage(self) -> Outage | None:
        """A relay that is only slow is better than none."""
        if (outage := self.outage) is None:
            return None
        for relay in self._relays:
            if relay.trouble is not None and relay.trouble.kind is Kind.SLOW:
                relay.try_again()
                if relay.may_open:
                    relay.open()
                return None
        return outage

    def _others(self, relay: Relay) -> list[Relay]:
        return [other for other in self._relays if other is not relay and not other.is_out]


def shares(addresses: Sequence[SmtpAddress], connections: int) -> list[int]:
    """How many of the connections each relay gets, by weight; at least one."""
    total = sum(address.weight for address in addresses)
    taken, before, parts = 0, 0, []
    for address in addresses:
        taken += address.weight
        upto = round(connections * taken / total)
        parts.append(max(1, upto - before))
        before = upto
    return parts
