"""All relays, and their common queue of mails. The next free connection of any relay takes the next mail."""

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
from coupons.smtp.breaker import Fault
from coupons.smtp.connect import ConnectError
from coupons.smtp.connection import Timeouts
from coupons.smtp.outcomes import SHUTTING_DOWN, Outcome, Unreachable
from coupons.smtp.queue import Mail, MailQueue
from coupons.smtp.relay import Limits, Relay

_LOAD = attrgetter("load")


@dataclass(frozen=True, slots=True)
class Outage:
    """No relay has been usable since `since` (UTC). In `retry_seconds`, one of them is tried again."""

    reason: str
    since: datetime
    retry_seconds: float


class Relays:
    """Calls the `report` of every submitted mail exactly once.

    A report may submit more mails. It is never called while a connection is handling an event.
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
        """`local_hostname` is sent in EHLO; the default is the name of this machine.

        `closing_seconds` is the time that mails in flight get to finish when the relays are closed.

        Raises SmtpAddressError if certificates cannot be read or the hostname is invalid.
        """
        self._queue = MailQueue()
        self._closing_seconds = closing_seconds
        self._is_dispatching = False
        self._relays = [
            Relay(
                address,
                share=share,
                queue=self._queue,
                on_capacity=self._dispatch,
                others_in_rotation=self._others_in_rotation,
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
        """Cancel queued mails, wait up to `closing_seconds` for mails in flight, then abort the other connections."""
        self._queue.close()
        for relay in self._relays:
            relay.close()
        self._queue.flush_reports()
        try:
            async with asyncio.timeout(self._closing_seconds):
                await self._wait_closed()
        except TimeoutError:
            pass
        finally:
            for relay in self._relays:
                relay.abort(SHUTTING_DOWN.explanation)
            self._queue.flush_reports()
        await self._wait_closed()
        if self._queue.unexpected_error is not None and error is None:
            raise self._queue.unexpected_error

    def submit(
        self,
        envelope: Envelope,
        report: Callable[[Outcome], None],
        owner: object = None,
        deadline: float | None = None,
    ) -> None:
        """Queue the mail. The next free connection sends it, and `report` is called with its outcome.

        `cancel_for(owner)` cancels the queued mails of this owner. The mail is never sent after `deadline`, a time of
        the running loop. If the deadline has passed when the mail's turn comes, it is reported as `Unreachable` with
        the cause DEADLINE.
        """
        self._queue.add(Mail(envelope, report, owner, math.inf if deadline is None else deadline))
        self._dispatch()
        self._queue.flush_reports()

    def cancel_for(self, owner: object) -> None:
        """Report every queued mail of this owner as `Unreachable` with the cause CANCELLED."""
        self._queue.cancel_for(owner)
        self._queue.flush_reports()

    def cancel_queued(self) -> None:
        """Report every queued mail as `Unreachable` with the cause SHUTDOWN."""
        self._queue.cancel_all(SHUTTING_DOWN)
        self._queue.flush_reports()

    async def send(self, envelope: Envelope) -> Outcome:
        """Submit one mail and wait for its outcome."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.submit(envelope, lambda outcome: None if done.done() else done.set_result(outcome))
        return await done

    async def check(self) -> str | None:
        """Connect and authenticate to every relay, without sending mail. Returns the first failure, or None.

        The text contains the relay's whole reply, if it is not about the password. It is for the operator who asked,
        and is not stored: `doctor` is where an operator finds the whole reply to a refused connection.
        """
        for relay in self._relays:
            try:
                await relay.check()
            except ConnectError as error:
                return f"relay {relay.name}: {error}" + (f" ({error.reply})" if error.reply else "")
        return None

    @property
    def count(self) -> int:
        return len(self._relays)

    @property
    def outage(self) -> Outage | None:
        """Why no mail can be sent now; None if a relay is in rotation."""
        troubles = [relay.breaker.trouble for relay in self._relays if relay.is_out_of_rotation]
        known = [trouble for trouble in troubles if trouble is not None]
        if len(known) < len(self._relays):
            return None
        return Outage(
            reason="; ".join(
                f"relay {relay.name} {trouble.fault.value} since {trouble.since:%H:%M} UTC: {trouble.reason}"
                for relay, trouble in zip(self._relays, known, strict=True)
            ),
            since=max(trouble.since for trouble in known),
            retry_seconds=min(relay.retry_seconds for relay in self._relays),
        )

    def stalled_owners(self) -> list[object]:
        """Return the owner of each mail on a stalled connection. An owner of several mails is listed once per mail."""
        return [mail.owner for relay in self._relays for mail in relay.connections.stalled_mails]

    @property
    def not_pipelined(self) -> dict[str, str]:
        """Maps each relay (host and port) that offers PIPELINING and violates it to the violation that was noticed."""
        return {relay.name: relay.not_pipelined for relay in self._relays if relay.not_pipelined is not None}

    async def _wait_closed(self) -> None:
        for relay in self._relays:
            await relay.wait_closed()

    def _dispatch(self) -> None:
        """Give queued mails to connections."""
        if self._is_dispatching:
            return
        self._is_dispatching = True
        try:
            while self._queue and self._dispatch_one():
                pass
        finally:
            self._is_dispatching = False
        if self._queue and (outage := self._outage_after_slow_relays()):
            self._queue.cancel_all(Unreachable(outage.reason))

    def _dispatch_one(self) -> bool:
        """Let one idle connection work, open one, or let one work ahead; return whether that may have taken a mail.

        At most as many connections are opening as there are mails in the queue.
        """
        if idle := [relay for relay in self._relays if relay.connections.idle]:
            min(idle, key=_LOAD).work()
            return True
        if sum(len(relay.connections.opening) for relay in self._relays) >= len(self._queue):
            return False
        if ready := [relay for relay in self._relays if relay.may_open]:
            min(ready, key=_LOAD).open()
            return True
        return any(relay.work_ahead() for relay in self._relays)

    def _outage_after_slow_relays(self) -> Outage | None:
        """Return the outage. If a relay is out of rotation only because it is slow, use that relay and return None."""
        if (outage := self.outage) is None:
            return None
        for relay in self._relays:
            if relay.breaker.trouble is not None and relay.breaker.trouble.fault is Fault.SLOW:
                relay.retry_now()
                if relay.may_open:
                    relay.open()
                return None
        return outage

    def _others_in_rotation(self, relay: Relay) -> list[Relay]:
        return [other for other in self._relays if other is not relay and not other.is_out_of_rotation]


def shares(addresses: Sequence[SmtpAddress], connections: int) -> list[int]:
    """Return each relay's number of connections: its part of `connections` by weight, but at least one."""
    total = sum(address.weight for address in addresses)
    taken, before, parts = 0, 0, []
    for address in addresses:
        taken += address.weight
        upto = round(connections * taken / total)
        parts.append(max(1, upto - before))
        before = upto
    return parts
