"""Retries: an operator sends refused or deferred mails again, also to a corrected address.

No relay has accepted these mails, so a recipient never gets a mail twice. The codes of a refused mail went back to
their lists. A retry therefore reserves codes again, of all lists or of none, as the admission of a sendout does. A
deferred mail keeps its codes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from asyncpg import Record

from coupons.addresses import Address
from coupons.admission import Granted, Need, Short, decide
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.states import DeliveryState, SendoutState, Shortage
from coupons.store import lists, needs, restore_guard
from coupons.store.queries import Queries
from coupons.store.sendout_views import RETRIED_STATES

SQL = Queries("retries.sql")
RETRY_SECONDS = 600
"""The time limit, which is enough for a sendout with a million refused mails."""
CORRECTED_STATES = (DeliveryState.REFUSED, DeliveryState.DEFERRED)
"""The states of a mail whose address can be corrected."""


class NotEnoughCodes(Conflict):
    """Lists have too few codes for the refused mails. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Correction:
    """The mail to `old` is sent to `new` instead."""

    old: Address
    new: Address


@dataclass(frozen=True, slots=True)
class Choice:
    """The mails to retry: all refused ones, all deferred ones, and those whose addresses are corrected."""

    refused: bool = False
    deferred: bool = False
    corrections: tuple[Correction, ...] = ()

    @classmethod
    def of(cls, *, refused: bool, deferred: bool, corrections: tuple[Correction, ...]) -> Self:
        """Return the choice that an operator has made. Without any, it is all refused mails."""
        return cls(refused or not (deferred or corrections), deferred, corrections)


@dataclass(frozen=True, slots=True)
class ListNeed:
    """The codes of one list that the refused mails need again, and the codes that the list has."""

    name: str
    shortage: Shortage
    needed: int
    available: int
    missing: int


@dataclass(frozen=True, slots=True)
class Retry:
    """The mails of a retry, and the codes that it needs. `state` is the sendout's state before it."""

    sendout: UUID
    state: SendoutState
    refused: int
    deferred: int
    corrected: int
    """How many of these mails get another address."""
    lists: tuple[ListNeed, ...]

    @property
    def mails(self) -> int:
        return self.refused + self.deferred


@dataclass(frozen=True, slots=True)
class _Plan:
    """The chosen mails: those of the locked `batches` in the chosen states, and the corrected ones, by number."""

    state: SendoutState
    batches: Sequence[int]
    corrected: Mapping[int, Address]
    counts: Mapping[DeliveryState, int]
    needs: Sequence[Need]
    granted: Granted

    def retry(self, sendout_id: UUID) -> Retry:
        return Retry(
            sendout_id,
            self.state,
            self.counts.get(DeliveryState.REFUSED, 0),
            self.counts.get(DeliveryState.DEFERRED, 0),
            len(self.corrected),
            tuple(ListNeed(n.name, n.shortage, n.needed, n.available, n.missing) for n in self.needs),
        )


async def preview(connection: Connection, sendout_id: UUID, choice: Choice) -> Retry:
    """Return what `retry` would do now, and change nothing. Raises what `retry` raises."""
    async with connection.transaction():
        return (await _plan(connection, sendout_id, choice)).retry(sendout_id)


async def retry(connection: Connection, sendout_id: UUID, choice: Choice) -> Retry:
    """Make the chosen mails pending again, and a finished sendout sending; their retry period begins again.

    Raises:
        NotEnoughCodes: a list without an alternative text has too few codes for the refused mails.
        Conflict: the sendout does not exist or is in another state, the restore guard blocks sending, a list is
            deleted, or an address cannot be corrected.
    """
    async with connection.transaction():
        plan = await _plan(connection, sendout_id, choice)
        if not plan.counts:
            return plan.retry(sendout_id)
        await _reserve(connection, sendout_id, plan)
        numbers = list(plan.corrected)
        if numbers:
            await connection.execute(SQL.keep_addresses, sendout_id, numbers)
        addresses = [each.address for each in plan.corrected.values()]
        keys = [each.key for each in plan.corrected.values()]
        await connection.execute(
            SQL.retry, sendout_id, plan.batches, choice.refused, choice.deferred, numbers, addresses, keys,
            timeout=RETRY_SECONDS,
        )  # fmt: skip
        await connection.execute(SQL.reopen, sendout_id)
        return plan.retry(sendout_id)


# --- the chosen mails ------------------------------------------------------------------------------------------------


async def _plan(connection: Connection, sendout_id: UUID, choice: Choice) -> _Plan:
    """Lock the batches, the sendout and its lists, and check that the chosen mails can be retried."""
    await connection.execute(f"SET LOCAL statement_timeout = '{RETRY_SECONDS}s'")
    found = await connection.fetch(SQL.find, sendout_id, [each.old.key for each in choice.corrections])
    of_corrected = [row["batch"] for row in found]
    rows = await connection.fetch(SQL.lock_batches, sendout_id, choice.refused, choice.deferred, of_corrected)
    batches = [row["number"] for row in rows]
    state = await _lock_sendout(connection, sendout_id)
    corrected = await _check_corrections(connection, sendout_id, choice.corrections)
    rows = await connection.fetch(
        SQL.count, sendout_id, batches, choice.refused, choice.deferred, list(corrected), timeout=RETRY_SECONDS
    )
    counts = Counter[DeliveryState]()
    for row in rows:
        counts[DeliveryState(row["state"])] += row["mails"]
    refused = [row for row in rows if row["state"] == DeliveryState.REFUSED]
    needed = await _needs(connection, sendout_id, refused)
    return _Plan(state, batches, corrected, counts, needed, _grant(needed))


async def _lock_sendout(connection: Connection, sendout_id: UUID) -> SendoutState:
    row = await connection.fetchrow(SQL.lock, sendout_id)
    if row is None:
        raise Conflict(f"there is no sendout {sendout_id}")
    state = SendoutState(row["state"])
    if state not in RETRIED_STATES:
        raise Conflict(f"sendout {sendout_id} is {state}: only mails of a sending, paused or finished one are retried")
    if refusal := await restore_guard.refusal(connection):
        raise Conflict(refusal)
    return state


async def _check_corrections(
    connection: Connection, sendout_id: UUID, corrections: Sequence[Correction]
) -> dict[int, Address]:
    """Return the new address by the number of its mail. Raises Conflict."""
    if not corrections:
        return {}
    lists_for = await needs.lists_by_address(connection, sendout_id)
    keys = [key for each in corrections for key in (each.old.key, each.new.key)]
    mails = {row["address_key"]: row for row in await connection.fetch(SQL.find, sendout_id, keys)}
    corrected = dict[int, Address]()
    new_keys = set[str]()
    for each in corrections:
        mail = mails.get(each.old.key)
        if mail is None:
            raise Conflict(f"{each.old.address} is not a recipient of sendout {sendout_id}")
        if mail["state"] not in CORRECTED_STATES:
            raise Conflict(f"the mail to {each.old.address} is {mail['state']}: only refused and deferred ones can be"
                           " corrected")  # fmt: skip
        if mail["was_uncertain"]:
            raise Conflict(f"an earlier mail to {each.old.address} may have arrived: another recipient would get the"
                           " same code")  # fmt: skip
        if mail["is_loaded"] and mail["state"] == DeliveryState.DEFERRED:
            raise Conflict(f"a worker is sending the mail to {each.old.address} now: try again in a few seconds")
        if each.new.key in mails or each.new.key in new_keys:
            raise Conflict(f"{each.new.address} is already a recipient of sendout {sendout_id}")
        if lists_for(mail["attributes"], mail["address"]) != lists_for(mail["attributes"], each.new.address):
            raise Conflict(f"a mail to {each.new.address} would print coupons of other lists: use another sendout")
        if mail["number"] in corrected:
            raise Conflict(f"two corrections of {each.old.address}")
        corrected[mail["number"]] = each.new
        new_keys.add(each.new.key)
    return corrected


# --- their codes -----------------------------------------------------------------------------------------------------


async def _needs(connection: Connection, sendout_id: UUID, refused: Sequence[Record]) -> list[Need]:
    """Lock the lists, and return the codes that the refused mails need of each. Deferred mails have their codes."""
    if not refused:
        return []
    rows = await connection.fetch(SQL.lock_lists, sendout_id)
    lists.check_usable(rows)
    needed = [
        Need(row["list_id"], row["name"], Shortage(row["shortage"]), _count(refused, row["list_id"]), row["available"])
        for row in rows
    ]
    return [each for each in needed if each.needed]


def _count(mails: Sequence[Record], list_id: int) -> int:
    return sum(row["mails"] for row in mails if row["lists"] is None or list_id in row["lists"])


def _grant(needed: Sequence[Need]) -> Granted:
    match decide(needed):
        case Short() as short:
            raise NotEnoughCodes(f"not enough codes: {short}; import the missing codes and try again")
        case Granted() as granted:
            return granted


async def _reserve(connection: Connection, sendout_id: UUID, plan: _Plan) -> None:
    amounts = plan.granted.amounts
    await lists.take(connection, amounts)
    await connection.execute(
        SQL.reserve, sendout_id, list(amounts), list(amounts.values()), [need.needed for need in plan.needs]
    )
