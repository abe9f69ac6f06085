"""The last word on a fault: what the mail sink's own ledger and the database's rows say of each other.

Nothing here asks a worker, a log or a counter. Of everything that was sent:

O1  no code is in the mails of two people, and none in a mail whose delivery does not own it
O2  nobody has two codes of one list in one sendout
O3  whoever was to get a mail of a finished sendout has one, or is refused or uncertain
O4  nobody has two mails of a sendout
O5  nothing left before its sendout was promised its codes, nor of one that never was
O6  `coupons verify` finds nothing wrong
O7  what the books call sent is in the ledger, and what is there they call sent or uncertain
O8  every sendout has come to an end, or waits for a person, and every recipient of it is in exactly one final state
O9  logs and queues hold neither codes nor addresses: the lab looks for them
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from coupons.database import Connection, connected
from coupons.store import invariants

MESSAGE_ID = re.compile(r"^Message-ID: <([0-9a-f]{32})\.(\d+)[^>]*>", re.IGNORECASE | re.MULTILINE)
CODE = re.compile(r"\b[A-Z]+-\d{5,9}\b")
SHOWN = 5
READ_SECONDS = 600
AT_REST = {"finished", "cancelled", "interrupted", "failed", "paused"}
"""States of sendouts that wait for nobody but a person."""
FINAL = {"sent", "refused", "uncertain", "cancelled"}
MAY_BE_MAILED = {"sent", "uncertain"}

Key = tuple[UUID, int]
"""Of a delivery: its sendout and its number."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A mail of the ledger: which delivery's it is, to whom, and every code that it shows."""

    delivery: Key
    recipient: str
    codes: frozenset[str]
    at: datetime


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


@dataclass(frozen=True, slots=True)
class _Sendout:
    state: str
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Books:
    sendouts: Mapping[UUID, _Sendout]
    states: Mapping[Key, str]
    addresses: Mapping[Key, str]
    owned: Mapping[Key, Mapping[str, int]]
    """Of each delivery the codes that it owns, with their lists."""


async def judge(database_url: str, *ledgers: Path, recipients: Mapping[UUID, int]) -> Verdict:
    """Of all sendouts; of some it is known from elsewhere how many `recipients` they must have."""
    copies = [copy for ledger in ledgers for copy in read(ledger)]
    async with connected(database_url) as connection:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(f"SET LOCAL statement_timeout = '{READ_SECONDS}s'")
            books = await _books(connection)
        proved = await invariants.prove(connection)
    verdict = Verdict(mails=len(copies), uncertain=sum(state == "uncertain" for state in books.states.values()))
    _everybody_has_their_own(verdict, copies, books)
    _nothing_is_there_twice(verdict, copies)
    _nobody_is_forgotten(verdict, copies, books, recipients)
    _nothing_left_too_early(verdict, copies, books)
    verdict.note("proofs (O6)", [proof.name for proof in proved if not proof.holds])
    return verdict


def read(ledger: Path) -> Iterator[Copy]:
    """Without parsing MIME, for 200,000 mails: the letters are written so that a code stands unbroken.

    A line that is not whole is of a mail that was never acknowledged: the sink was killed while it wrote.
    """
    with ledger.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("}\n"):
                entry = json.loads(line)
                (recipient,) = entry["rcpt_to"]
                found = MESSAGE_ID.search(entry["data"])
                assert found, "a mail without our Message-ID"
                codes = frozenset(CODE.findall(entry["data"]))
                yield Copy((UUID(found[1]), int(found[2])), recipient, codes, datetime.fromisoformat(entry["at"]))


async def _books(connection: Connection) -> _Books:
    sendouts = await connection.fetch("SELECT id, state, started_at FROM sendout")
    deliveries = await connection.fetch("SELECT sendout_id, number, state, address FROM delivery", timeout=READ_SECONDS)
    owners = await connection.fetch(
        "SELECT code, list_id, sendout_id, delivery_number FROM coupon WHERE sendout_id IS NOT NULL",
        timeout=READ_SECONDS,
    )
    owned: dict[Key, dict[str, int]] = defaultdict(dict)
    for row in owners:
        owned[row["sendout_id"], row["delivery_number"]][row["code"]] = row["list_id"]
    return _Books(
        {row["id"]: _Sendout(row["state"], row["started_at"]) for row in sendouts},
        {(row["sendout_id"], row["number"]): row["state"] for row in deliveries},
        {(row["sendout_id"], row["number"]): row["address"] for row in deliveries},
        owned,
    )


def _everybody_has_their_own(verdict: Verdict, copies: list[Copy], books: _Books) -> None:
    people: dict[str, set[str]] = defaultdict(set)
    held: dict[tuple[UUID, str, int], set[str]] = defaultdict(set)
    others = []
    for copy in copies:
        own = books.owned.get(copy.delivery, {})
        for code in copy.codes:
            people[code].add(copy.recipient.lower())
            if code in own:
                held[copy.delivery[0], copy.recipient.lower(), own[code]].add(code)
        if copy.codes != {code for code in own if CODE.fullmatch(code)}:
            others.append(copy)
    verdict.two_codes = verdict.note("codes with two people (O1)", [it for it in people if len(people[it]) > 1])
    verdict.two_codes += verdict.note("people with two codes of a list (O2)", [it for it in held if len(held[it]) > 1])
    verdict.note("mails without their codes, or with those of others (O1)", others)


def _nothing_is_there_twice(verdict: Verdict, copies: list[Copy]) -> None:
    mailed = Counter((copy.delivery[0], copy.recipient.lower()) for copy in copies)
    verdict.twice = verdict.note("people mailed twice (O4)", [it for it, times in mailed.items() if times > 1])
    unlike = Counter(copy.delivery for copy in copies)
    verdict.note("deliveries mailed twice (O4)", [it for it, times in unlike.items() if times > 1])


def _nobody_is_forgotten(verdict: Verdict, copies: list[Copy], books: _Books, recipients: Mapping[UUID, int]) -> None:
    mailed = {copy.delivery for copy in copies}
    counted = Counter(sendout for sendout, _ in books.states)
    verdict.lost = verdict.note(
        "sent, and no mail (O7)", [it for it, state in books.states.items() if state == "sent" and it not in mailed]
    )
    open_ = [
        it for it, state in books.states.items() if state not in FINAL and books.sendouts[it[0]].state == "finished"
    ]
    verdict.lost += verdict.note("never mailed, and the sendout has ended (O3)", open_)
    verdict.lost += verdict.note(
        "sendouts with fewer people than they were to have (O3)",
        [it for it, many in recipients.items() if counted[it] != many],
    )
    verdict.note(
        "sendouts that go on for ever (O8)",
        [it for it, sendout in books.sendouts.items() if sendout.state not in AT_REST],
    )
    verdict.note("mails that the books deny (O7)", [it for it in mailed if books.states.get(it) not in MAY_BE_MAILED])
    verdict.note(
        "mails to somebody else (O7)", [copy for copy in copies if books.addresses.get(copy.delivery) != copy.recipient]
    )


def _nothing_left_too_early(verdict: Verdict, copies: list[Copy], books: _Books) -> None:
    def early(copy: Copy) -> bool:
        sendout = books.sendouts.get(copy.delivery[0])
        return sendout is None or sendout.started_at is None or copy.at < sendout.started_at

    verdict.note("mails of what was not promised its codes (O5)", [copy for copy in copies if early(copy)])
