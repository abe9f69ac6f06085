"""The last word on a fault: what the mail sink's own ledger and the database's rows say of each other.

O1 to O8 are the questions; nothing here asks a worker, a log or a counter.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg

from coupons.database import connected
from coupons.store import proofs

MESSAGE_ID = re.compile(r"^Message-ID: <([0-9a-f]{32})\.(\d+)[^>]*>", re.IGNORECASE | re.MULTILINE)
CODE = re.compile(r"\b[A-Z]+-\d{5,9}\b")
SHOWN = 5
NOT_MAILED = ("pending", "deferred", "refused", "cancelled")


@dataclass(frozen=True, slots=True)
class Copy:
    """A mail of the ledger: which delivery's it is, to whom, and every code that it shows."""

    delivery: tuple[UUID, int]
    recipient: str
    codes: tuple[str, ...]


@dataclass(slots=True)
class Verdict:
    """How many of each; `wrong` says which, the first few of each kind."""

    mails: int = 0
    lost: int = 0
    twice: int = 0
    two_codes: int = 0
    uncertain: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str, found: Collection[object]) -> int:
        if found:
            self.wrong.append(f"{len(found)} {what}: {', '.join(map(str, [*found][:SHOWN]))}")
        return len(found)


async def judge(database_url: str, *ledgers: Path, resent: Collection[UUID] = ()) -> Verdict:
    """Of all sendouts. Of those that were `resent`, a mail may be there again: the same one with the same codes."""
    copies = [copy for ledger in ledgers for copy in read(ledger)]
    async with connected(database_url) as connection, connection.transaction(isolation="repeatable_read"):
        await connection.execute("SET LOCAL statement_timeout = 0")
        books = await _books(connection)
    verdict = Verdict(mails=len(copies), uncertain=sum(state == "uncertain" for state in books.deliveries.values()))
    _nobody_has_anothers(verdict, copies, books)
    _nothing_is_there_twice(verdict, copies, resent)
    _books_tell_the_truth(verdict, copies, books)
    async with connected(database_url) as connection:
        verdict.note("proofs", [proof.name for proof in await proofs.prove(connection) if not proof.holds])  # O6, O8
    return verdict


def read(ledger: Path) -> Iterator[Copy]:
    """Without parsing MIME, for 200,000 mails: the letters are written so that a code stands unbroken."""
    with ledger.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            found = MESSAGE_ID.search(entry["data"])
            assert found, "a mail without our Message-ID"
            delivery = UUID(found[1]), int(found[2])
            yield Copy(delivery, entry["rcpt_to"][0], tuple(sorted({*CODE.findall(entry["data"])})))


@dataclass(frozen=True, slots=True)
class _Books:
    states: dict[UUID, str]
    """Of sendouts."""
    deliveries: dict[tuple[UUID, int], str]
    addresses: dict[tuple[UUID, int], str]
    lists: dict[str, int]
    """Of each code."""


async def _books(
    connection: "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
) -> _Books:
    states = {row["id"]: row["state"] for row in await connection.fetch("SELECT id, state FROM sendout")}
    rows = await connection.fetch("SELECT sendout_id, number, state, address FROM delivery", timeout=600)
    deliveries = {(row["sendout_id"], row["number"]): row for row in rows}
    codes = await connection.fetch("SELECT code, list_id FROM coupon", timeout=600)
    return _Books(
        states,
        {key: row["state"] for key, row in deliveries.items()},
        {key: row["address"] for key, row in deliveries.items()},
        {row["code"]: row["list_id"] for row in codes},
    )


def _nobody_has_anothers(verdict: Verdict, copies: list[Copy], books: _Books) -> None:
    owners = defaultdict(set)
    held = defaultdict(set)
    for copy in copies:
        for code in copy.codes:
            owners[code].add(copy.recipient.lower())
            held[copy.delivery[0], copy.recipient.lower(), books.lists.get(code)].add(code)
    shared = [code for code, people in owners.items() if len(people) > 1]
    several = [key for key, codes in held.items() if len(codes) > 1]
    verdict.two_codes = verdict.note("codes with two people (O1)", shared)
    verdict.two_codes += verdict.note("people with two codes of a list (O2)", several)
    verdict.note("mails with a code of no list", [copy for copy in copies if not {*copy.codes} <= books.lists.keys()])


def _nothing_is_there_twice(verdict: Verdict, copies: list[Copy], resent: Collection[UUID]) -> None:
    mailed = Counter((copy.delivery[0], copy.recipient.lower()) for copy in copies)
    again = [key for key, times in mailed.items() if times > 1 and key[0] not in resent]
    verdict.twice = verdict.note("people mailed twice (O4)", again)
    versions = defaultdict(set)
    for copy in copies:
        versions[copy.delivery].add((copy.recipient, copy.codes))
    verdict.twice += verdict.note(
        "mails that came back as others (O4)", [key for key, it in versions.items() if len(it) > 1]
    )


def _books_tell_the_truth(verdict: Verdict, copies: list[Copy], books: _Books) -> None:
    mailed = {copy.delivery for copy in copies}
    unknown = [copy for copy in copies if books.addresses.get(copy.delivery) != copy.recipient]
    verdict.note("mails of no delivery", unknown)
    early = [key for key in mailed if books.states.get(key[0]) == "interrupted"]
    verdict.note("mails of an interrupted sendout (O5)", early)
    unsent = [key for key, state in books.deliveries.items() if state == "sent" and key not in mailed]
    verdict.lost = verdict.note("sent, and no mail is there (O3, O7)", unsent)
    ended = ("finished", "cancelled")
    waiting = [
        key
        for key, state in books.deliveries.items()
        if state in {"pending", "deferred"} and books.states[key[0]] in ended
    ]
    verdict.lost += verdict.note("never mailed, and the sendout has ended (O3)", waiting)
    denied = [key for key in mailed if books.deliveries.get(key) in NOT_MAILED]
    verdict.note("mails that the books deny (O7)", denied)
