"""The checks of the model's database and mails after every step. oracle.py lists the rules (O1, O2, …)."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from asyncpg import Record

from coupons.database import Connection
from coupons.store import invariants
from tests.faults.model_codes import composed, folded
from tests.faults.model_messages import Message
from tests.faults.model_network import REFUSALS, Mail
from tests.leaks import leaks
from workers.delivery.evidence import FIRST_SUSPECTS

FINAL = ("sent", "refused", "uncertain", "cancelled")
NOT_STARTED = ("queued", "preparing", "interrupted", "failed")
DELIVERIES = """
SELECT d.sendout_id, d.number, d.address, d.attributes ->> 'tier' AS tier, d.state, d.reply, d.was_uncertain,
       s.state AS sendout, m.name AS message,
       d.number = ANY (b.in_flight) AS in_flight
FROM delivery d JOIN sendout s ON s.id = d.sendout_id JOIN message m ON m.id = s.message_id
JOIN delivery_batch b ON b.sendout_id = d.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
"""
NEEDS = "SELECT sendout_id, name AS list, needed FROM sendout_list JOIN coupon_list l ON l.id = list_id"
REASONS = "SELECT concat_ws('; ', reason, waiting_reason) AS reason FROM sendout"
CODES = """
SELECT l.name AS list, c.code, c.sendout_id, c.delivery_number FROM coupon c JOIN coupon_list l ON l.id = c.list_id
"""

CASE_SENSITIVE = "c"
"""The list whose codes that differ only in case are different coupons."""
MAX_REFUSED = FIRST_SUSPECTS - 1
"""How many mails of a sendout a worker process may refuse while the relay refuses all messages. With one mail more, it
pauses the sendout.
"""


@dataclass(slots=True)
class Decisions:
    """How operators have resolved uncertain mails. A key is a sendout and the number of its delivery."""

    max_mails: dict[tuple[UUID, int], int] = field(default_factory=dict)
    """The number of copies of a resent mail that may arrive: one more than had arrived when it was resent."""
    accepted: set[tuple[UUID, int]] = field(default_factory=set)

    def resend(self, keys: Collection[tuple[UUID, int]], mails: Sequence[Mail]) -> None:
        arrived = Counter(mail.key for mail in mails)
        self.max_mails |= {key: arrived[key] + 1 for key in keys}


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery in the database."""

    sendout_id: UUID
    number: int
    address: str
    tier: str | None
    state: str
    reply: str | None
    was_uncertain: bool
    sendout: str
    message: str
    in_flight: bool

    @property
    def key(self) -> tuple[UUID, int]:
        return self.sendout_id, self.number

    @property
    def lists(self) -> tuple[str, ...]:
        """The lists that the mail must print."""
        return Message.named(self.message).printed(self.tier)


async def list_violations(
    connection: Connection, mails: Sequence[Mail], decisions: Decisions, *, processes: int, ended: bool
) -> list[str]:
    """Describe each violation. With `ended`, all work must be finished and no mail lost."""
    found = [f"{proof.name}: {proof.violations}" for proof in await invariants.check(connection) if not proof.ok]  # O6
    deliveries = {entry.key: entry for entry in [DeliveryRow(**row) for row in await connection.fetch(DELIVERIES)]}
    rows = await connection.fetch(CODES)
    owners = {(row["list"], composed(row["code"])): (row["sendout_id"], row["delivery_number"]) for row in rows}
    found += [*_repeated_codes(owners), *_shared_codes(mails), *_wrong_codes(mails, owners)]
    found += _mailed_twice(mails, decisions)
    found += _state_violations(mails, deliveries, decisions)
    found += _wrong_needs(mails, deliveries, await connection.fetch(NEEDS))
    found += _used_up(mails, deliveries, processes)
    found += [f"O9: {row['reason']}" for row in await connection.fetch(REASONS) if leaks(row["reason"])]
    if ended:
        found += _lost_mails(mails, deliveries, decisions)
    return found


def _shared_codes(mails: Sequence[Mail]) -> Iterator[str]:
    owners, held = defaultdict(set), defaultdict(set)
    for mail in mails:
        for list_name, code in mail.codes:
            owners[folded(code)].add((list_name, code, mail.recipient))
            held[mail.sendout_id, mail.recipient, list_name].add(code)
    for mailed in owners.values():
        if len({recipient for *_, recipient in mailed}) > len(_coupons((name, code) for name, code, _ in mailed)):
            yield f"O1: one code was mailed to several recipients: {mailed}"
    yield from (f"O2: {whose} got {codes}" for whose, codes in held.items() if len(codes) > 1)


def _repeated_codes(known: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Describe codes that lists have in several spellings."""
    spellings = defaultdict(set)
    for list_name, code in known:
        spellings[folded(code)].add((list_name, code))
    for same in spellings.values():
        if len(same) > len(_coupons(same)):
            yield f"O1: one code is in lists several times: {same}"


def _coupons(spellings: Iterable[tuple[str, str]]) -> set[str]:
    """The different coupons among spellings of a code: one, except in the case-sensitive list."""
    known = {*spellings}
    return {code for _, code in known} if {name for name, _ in known} == {CASE_SENSITIVE} else {folded(known.pop()[1])}


def _mailed_twice(mails: Sequence[Mail], decisions: Decisions) -> Iterator[str]:
    copies = defaultdict(list)
    for mail in mails:
        copies[mail.key].append(mail)
    for whose, same in copies.items():
        expected = decisions.max_mails.get(whose, 1)
        if len(same) > expected:
            yield f"O4: {whose} was mailed {len(same)} times instead of {expected}"
        if len({*same}) > 1:
            yield f"O4: {whose} got different mails: {same}"


def _state_violations(
    mails: Sequence[Mail], deliveries: dict[tuple[UUID, int], DeliveryRow], decisions: Decisions
) -> Iterator[str]:
    for mail in mails:
        entry = deliveries.get(mail.key)
        if entry is None or entry.address != mail.recipient:
            yield f"O7: {mail} belongs to no delivery"
        elif entry.sendout in NOT_STARTED:
            yield f"O5: {mail}, but its sendout is {entry.sendout}"
        elif not (entry.state in {"sent", "uncertain"} or entry.in_flight or entry.was_uncertain):
            yield f"O7: {mail}, but its delivery is {entry.state}"
    mailed = {mail.key for mail in mails}
    for entry in deliveries.values():
        if entry.state == "sent" and entry.key not in mailed | decisions.accepted:
            yield f"O7: sent without a mail: {entry}"


def _wrong_needs(
    mails: Sequence[Mail], deliveries: Mapping[tuple[UUID, int], DeliveryRow], rows: Iterable[Record]
) -> Iterator[str]:
    """Describe mails that print other lists than they should, and sendouts that need more or fewer codes than that."""
    for mail in mails:
        if (entry := deliveries.get(mail.key)) and sorted(mail.lists) != sorted(entry.lists):
            yield f"O11: {mail} must print {entry.lists}"
    needed = Counter((entry.sendout_id, name) for entry in deliveries.values() for name in entry.lists)
    for row in rows:
        if row["needed"] != (expected := needed[row["sendout_id"], row["list"]]):
            yield f"O11: sendout {row['sendout_id']} needs {row['needed']} of {row['list']} instead of {expected}"


def _used_up(
    mails: Sequence[Mail], deliveries: Mapping[tuple[UUID, int], DeliveryRow], processes: int
) -> Iterator[str]:
    """Describe sendouts with too many mails that were refused although the relay refused all mails."""
    accepted = {mail.sendout_id for mail in mails}
    replies = {reply for _, reply in REFUSALS.values()}
    refused = Counter(
        each.sendout_id for each in deliveries.values() if each.state == "refused" and each.reply in replies
    )
    for sendout, count in refused.items():
        if sendout not in accepted and count > MAX_REFUSED * processes:
            yield f"O12: {count} mails of sendout {sendout} were refused while the relay refused all mails"


def _lost_mails(
    mails: Sequence[Mail], deliveries: dict[tuple[UUID, int], DeliveryRow], decisions: Decisions
) -> Iterator[str]:
    mailed = {mail.key for mail in mails} | decisions.accepted
    for entry in deliveries.values():
        if entry.state not in FINAL:
            yield f"O8: not in a final state: {entry}"
        if entry.state not in {"refused", "uncertain", "cancelled"} and entry.key not in mailed:
            yield f"O3: no mail: {entry}"


def _wrong_codes(mails: Sequence[Mail], owners: dict[tuple[str, str], tuple[UUID, int]]) -> Iterator[str]:
    """Describe mails whose code is assigned to another delivery. Codes of deleted lists are not checked."""
    for mail in mails:
        for shown in mail.codes:
            if (owner := owners.get(shown, mail.key)) != mail.key:
                yield f"O1: {mail}, but its code is assigned to {owner}"
