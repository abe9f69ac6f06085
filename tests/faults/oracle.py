"""The rules that must hold after every fault. They compare the mail sink's ledger with the rows of the database.

The rules do not rely on workers, logs or counters:

O1  no code is in the mails of two recipients, whatever its list and its case, and each mail has exactly the codes that
    are assigned to its delivery
O2  no recipient has two codes of one list in one sendout
O3  every recipient of a finished sendout has a mail, or is refused or uncertain
O4  no recipient has two mails of one sendout
O5  no mail is older than the start of its sendout, which reserves the codes
O6  no invariant that `coupons verify` checks is violated
O7  every delivery in state sent has a mail, and every mail has a delivery in state sent or uncertain
O8  every sendout has ended or waits for an operator, and each of its recipients is in exactly one final state
O9  no log, no stored reason, no event of an import, no header of a rejected command and no queue contains a code or an
    address (checked by the lab)
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from coupons.database import Connection, connect
from coupons.store import invariants

MESSAGE_ID = re.compile(r"^Message-ID: <([0-9a-f]{32})\.(\d+)[^>]*>", re.IGNORECASE | re.MULTILINE)
CODE = re.compile(r"\b(?:[A-Z]+|[a-z]+)-\d{5,9}\b")
SHOWN = 5
READ_SECONDS = 600
AT_REST = {"finished", "cancelled", "interrupted", "failed", "paused"}
"""States of sendouts that have ended or wait for an operator."""
FINAL = {"sent", "refused", "uncertain", "cancelled"}
MAY_BE_MAILED = {"sent", "uncertain"}

Key = tuple[UUID, int]
"""A delivery: its sendout and its number."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A mail of the ledger: its delivery, its recipient and all codes in it."""

    delivery: Key
    recipient: str
    codes: frozenset[str]
    at: datetime


@dataclass(slots=True)
class Verdict:
    """Counts of mails and violations. `wrong` describes each kind of violation with its first few cases."""

    mails: int = 0
    lost: int = 0
    duplicates: int = 0
    two_codes: int = 0
    uncertain: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, what: str, found: Collection[object]) -> int:
        if found:
            self.wrong.append(f"{len(found)} {what}: {', '.join(map(str, [*found][:SHOWN]))}")
        return len(found)


@dataclass(frozen=True, slots=True)
class _Sendout:
    state: str
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Database:
    sendouts: Mapping[UUID, _Sendout]
    states: Mapping[Key, str]
    addresses: Mapping[Key, str]
    assigned: Mapping[Key, Mapping[str, int]]
    """The codes that are assigned to each delivery. A code maps to the id of its list."""


async def check_sendouts(database_url: str, *ledgers: Path, recipients: Mapping[UUID, int]) -> Verdict:
    """Check all sendouts. `recipients` maps some of them to their expected number of recipients."""
    copies = [copy for ledger in ledgers for copy in read(ledger)]
    async with connect(database_url) as connection:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(f"SET LOCAL statement_timeout = '{READ_SECONDS}s'")
            database = await _read_database(connection)
        invariants_found = await invariants.check(connection)
    verdict = Verdict(mails=len(copies), uncertain=sum(state == "uncertain" for state in database.states.values()))
    _check_codes(verdict, copies, database)
    _check_duplicates(verdict, copies)
    _check_states(verdict, copies, database, recipients)
    _check_start(verdict, copies, database)
    verdict.add("violated invariants (O6)", [each.name for each in invariants_found if not each.ok])
    return verdict


def read(ledger: Path) -> Iterator[Copy]:
    """Read a ledger. MIME is not parsed: a ledger has up to 200,000 mails, and these mails never wrap a code.

    Skips an incomplete line: the sink was killed while it wrote the line, so it never accepted that mail.
    """
    with ledger.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("}\n"):
                entry = json.loads(line)
                (recipient,) = entry["rcpt_to"]
                found = MESSAGE_ID.search(entry["data"])
                assert found, "a mail without a Message-ID of ours"
                codes = frozenset(CODE.findall(entry["data"]))
                yield Copy((UUID(found[1]), int(found[2])), recipient, codes, datetime.fromisoformat(entry["at"]))


async def _read_database(connection: Connection) -> _Database:
    sendouts = await connection.fetch("SELECT id, state, started_at FROM sendout")
    deliveries = await connection.fetch("SELECT sendout_id, number, state, address FROM delivery", timeout=READ_SECONDS)
    owners = await connection.fetch(
        "SELECT code, list_id, sendout_id, delivery_number FROM coupon WHERE sendout_id IS NOT NULL",
        timeout=READ_SECONDS,
    )
    assigned: dict[Key, dict[str, int]] = defaultdict(dict)
    for row in owners:
        assigned[row["sendout_id"], row["delivery_number"]][row["code"]] = row["list_id"]
    return _Database(
        {row["id"]: _Sendout(row["state"], row["started_at"]) for row in sendouts},
        {(row["sendout_id"], row["number"]): row["state"] for row in deliveries},
        {(row["sendout_id"], row["number"]): row["address"] for row in deliveries},
        assigned,
    )


def _check_codes(verdict: Verdict, copies: list[Copy], database: _Database) -> None:
    recipients: dict[str, set[str]] = defaultdict(set)
    held: dict[tuple[UUID, str, int], set[str]] = defaultdict(set)
    others = []
    for copy in copies:
        own = database.assigned.get(copy.delivery, {})
        for code in copy.codes:
            recipients[code.upper()].add(copy.recipient.lower())
            if code in own:
                held[copy.delivery[0], copy.recipient.lower(), own[code]].add(code)
        if copy.codes != {code for code in own if CODE.fullmatch(code)}:
            others.append(copy)
    verdict.two_codes = verdict.add(
        "codes mailed to two recipients (O1)", [it for it in recipients if len(recipients[it]) > 1]
    )
    verdict.two_codes += verdict.add(
        "recipients with two codes of a list (O2)", [it for it in held if len(held[it]) > 1]
    )
    verdict.add("mails without their codes or with other codes (O1)", others)


def _check_duplicates(verdict: Verdict, copies: list[Copy]) -> None:
    mailed = Counter((copy.delivery[0], copy.recipient.lower()) for copy in copies)
    verdict.duplicates = verdict.add("recipients mailed twice (O4)", [it for it, times in mailed.items() if times > 1])
    deliveries = Counter(copy.delivery for copy in copies)
    verdict.add("deliveries mailed twice (O4)", [it for it, times in deliveries.items() if times > 1])


def _check_states(verdict: Verdict, copies: list[Copy], database: _Database, recipients: Mapping[UUID, int]) -> None:
    mailed = {copy.delivery for copy in copies}
    counted = Counter(sendout for sendout, _ in database.states)
    verdict.lost = verdict.add(
        "sent without a mail (O7)",
        [it for it, state in database.states.items() if state == "sent" and it not in mailed],
    )
    open_ = [
        it
        for it, state in database.states.items()
        if state not in FINAL and database.sendouts[it[0]].state == "finished"
    ]
    verdict.lost += verdict.add("not in a final state, but the sendout is finished (O3)", open_)
    verdict.lost += verdict.add(
        "sendouts with a wrong number of recipients (O3)",
        [it for it, many in recipients.items() if counted[it] != many],
    )
    verdict.add(
        "sendouts that have not ended (O8)",
        [it for it, sendout in database.sendouts.items() if sendout.state not in AT_REST],
    )
    verdict.add(
        "mails without a delivery in state sent or uncertain (O7)",
        [it for it in mailed if database.states.get(it) not in MAY_BE_MAILED],
    )
    verdict.add(
        "mails to another address than their delivery's (O7)",
        [copy for copy in copies if database.addresses.get(copy.delivery) != copy.recipient],
    )


def _check_start(verdict: Verdict, copies: list[Copy], database: _Database) -> None:
    def early(copy: Copy) -> bool:
        sendout = database.sendouts.get(copy.delivery[0])
        return sendout is None or sendout.started_at is None or copy.at < sendout.started_at

    verdict.add("mails before the start of their sendout (O5)", [copy for copy in copies if early(copy)])
