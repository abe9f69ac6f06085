"""What must be true of the model after every step: of the books in the database, and of the mails that really came."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from coupons.database import Connection
from coupons.store import invariants
from tests.faults.model_network import Mail

FINAL = ("sent", "refused", "uncertain", "cancelled")
NOT_STARTED = ("queued", "preparing", "interrupted", "failed")
BOOKS = """
SELECT d.sendout_id, d.number, d.address, d.state, d.was_uncertain, s.state AS sendout,
       d.number = ANY (b.in_flight) AS in_flight
FROM delivery d JOIN sendout s ON s.id = d.sendout_id
JOIN delivery_batch b ON b.sendout_id = d.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
"""
CODES = """
SELECT l.name AS list, c.code, c.sendout_id, c.delivery_number FROM coupon c JOIN coupon_list l ON l.id = c.list_id
"""


@dataclass(slots=True)
class Decided:
    """What people have decided about uncertain mails, by sendout and number."""

    most: dict[tuple[UUID, int], int] = field(default_factory=dict)
    """Of one that was to be sent again: one more than had come by then."""
    accepted: set[tuple[UUID, int]] = field(default_factory=set)

    def resend(self, keys: Collection[tuple[UUID, int]], mails: Sequence[Mail]) -> None:
        had_come = Counter(mail.key for mail in mails)
        self.most |= {key: had_come[key] + 1 for key in keys}


@dataclass(frozen=True, slots=True)
class Entry:
    """What the books say of a delivery."""

    sendout_id: UUID
    number: int
    address: str
    state: str
    was_uncertain: bool
    sendout: str
    in_flight: bool

    @property
    def key(self) -> tuple[UUID, int]:
        return self.sendout_id, self.number


async def wrongs(connection: Connection, mails: Sequence[Mail], decided: Decided, *, ended: bool) -> list[str]:
    """Each thing that must not be, in words; `ended`: everything has come to its end."""
    found = [
        f"{proof.name}: {proof.offenders}" for proof in await invariants.prove(connection) if not proof.holds
    ]  # O6
    books = {entry.key: entry for entry in [Entry(**row) for row in await connection.fetch(BOOKS)]}
    rows = await connection.fetch(CODES)
    owners = {(row["list"], row["code"]): (row["sendout_id"], row["delivery_number"]) for row in rows}
    found += [*_shared(mails), *_shown_codes(mails, owners), *_mailed_twice(mails, decided)]
    found += _told(mails, books, decided)
    if ended:
        found += _lost(mails, books, decided)
    return found


def _shared(mails: Sequence[Mail]) -> Iterator[str]:
    owners, held = defaultdict(set), defaultdict(set)
    for mail in mails:
        for list_name, code in mail.codes:
            owners[list_name, code].add(mail.recipient)
            held[mail.sendout_id, mail.recipient, list_name].add(code)
    yield from (f"O1: {code} was mailed to {people}" for code, people in owners.items() if len(people) > 1)
    yield from (f"O2: {whose} got {codes}" for whose, codes in held.items() if len(codes) > 1)


def _mailed_twice(mails: Sequence[Mail], decided: Decided) -> Iterator[str]:
    copies = defaultdict(list)
    for mail in mails:
        copies[mail.sendout_id, mail.recipient].append(mail)
    for whose, same in copies.items():
        asked_for = decided.most.get(same[0].key, 1)
        if len(same) > asked_for:
            yield f"O4: {whose} was mailed {len(same)} times, {asked_for} were asked for"
        if len({*same}) > 1:
            yield f"O4: {whose} was mailed different things: {same}"


def _told(mails: Sequence[Mail], books: dict[tuple[UUID, int], Entry], decided: Decided) -> Iterator[str]:
    for mail in mails:
        entry = books.get(mail.key)
        if entry is None or entry.address != mail.recipient:
            yield f"O7: {mail} is no delivery's"
        elif entry.sendout in NOT_STARTED:
            yield f"O5: {mail}, and its sendout is {entry.sendout}"
        elif not (entry.state in {"sent", "uncertain"} or entry.in_flight or entry.was_uncertain):
            yield f"O7: {mail}, and the books say {entry.state}"
    mailed = {mail.key for mail in mails}
    for entry in books.values():
        if entry.state == "sent" and entry.key not in mailed | decided.accepted:
            yield f"O7: sent and not there: {entry}"


def _lost(mails: Sequence[Mail], books: dict[tuple[UUID, int], Entry], decided: Decided) -> Iterator[str]:
    mailed = {mail.key for mail in mails} | decided.accepted
    for entry in books.values():
        if entry.sendout == "failed":
            continue
        if entry.state not in FINAL:
            yield f"O8: at the end: {entry}"
        if entry.state not in {"refused", "uncertain", "cancelled"} and entry.key not in mailed:
            yield f"O3: lost: {entry}"


def _shown_codes(mails: Sequence[Mail], owners: dict[tuple[str, str], tuple[UUID, int]]) -> Iterator[str]:
    """Those of a deleted list are gone."""
    for mail in mails:
        for shown in mail.codes:
            if (owner := owners.get(shown, mail.key)) != mail.key:
                yield f"{mail}, and its code is of {owner}"
