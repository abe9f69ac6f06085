"""A shop that uses the Coupon Manager: its daily work by commands, and its mails and database to check the results."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from coupons.commands import Command
from coupons.database import connect
from coupons.store import invariants, lists
from coupons.store.invariants import Invariant
from coupons.store.lists import CouponList
from sandbox.ledger import Mail
from sandbox.services import Services, Sink
from tests.acceptance import queues
from tests.acceptance.mails import Received, received
from tests.acceptance.processes import DONE, Programs, Result
from tests.factories import stock
from tests.leaks import find_leaks, words_of
from tests.waiting import eventually

Arguments = tuple[object, ...]


class Shop(Programs):
    """A shop on private services. Tests choose the names of lists, groups and messages."""

    def __init__(self, services: Services, sink: Sink, folder: Path) -> None:
        super().__init__(services, folder)
        self._sink = sink

    # --- the work of its operators and marketers ---

    def prepare(self, message: str, group: str, addresses: Iterable[str], lists: Mapping[str, Sequence[str]]) -> None:
        """Create lists with codes, a group, and a message with a code of each list. The commands need a worker."""
        create = (("list", "create", name) for name in lists)
        self.together(self.importing_group(group, addresses), *create)
        fill = (self.importing(name, codes) for name, codes in lists.items())
        self.together(self.saving(message, letter(*lists)), *fill)

    def has(
        self,
        message: str,
        group: str,
        addresses: Iterable[str],
        lists: Mapping[str, Sequence[str]],
        *,
        text: str = "",
        alternative_text: str = "",
    ) -> None:
        """Create the same data in the store without commands, optionally with another text or an alternative text."""
        asyncio.run(
            stock(
                self.services.database_url,
                message=message,
                text=text or letter(*lists),
                group=group,
                addresses=addresses,
                codes=lists,
                alternative_text=alternative_text,
            )
        )

    def import_codes(self, name: str, codes: Iterable[str], *options: object, code: int = DONE) -> Result:
        return self.coupons(*self.importing(name, codes), *options, code=code)

    def importing(self, name: str, codes: Iterable[str]) -> Arguments:
        """Return the command that imports codes into a list and waits for the import."""
        return (
            "import",
            self.file(f"codes-{name}.txt", "".join(f"{code}\n" for code in codes)),
            "--list",
            name,
            "--wait",
        )

    def importing_group(self, name: str, addresses: Iterable[str]) -> Arguments:
        """Return the command that imports a group whose recipients are all called Ada and waits for the import."""
        rows = "".join(f"{address};Ada\n" for address in addresses)
        file = self.file(f"group-{name}.csv", f"email;first_name\n{rows}")
        return "group", "import", file, "--group", name, "--wait"

    def saving(self, name: str, text: str) -> Arguments:
        """Return the command that saves a message with this text as its text part and its HTML part."""
        files = "--text", self.file(f"{name}.txt", text), "--html", self.file(f"{name}.html", f"<p>{text}</p>")
        return "message", "save", name, "--subject", "For {{ first_name }}", *files

    def send(self, message: str, group: str, code: int = DONE) -> Any:
        """Send, wait until the sendout has ended or is interrupted, and return it."""
        return self.coupons("send", "--message", message, "--group", group, "--wait", "--json", code=code).json

    def begin_sending(self, message: str, group: str, *options: object) -> UUID:
        return UUID(self.coupons("send", "--message", message, "--group", group, *options).out.strip())

    def resume(self, sendout: UUID | str, code: int = DONE) -> Any:
        """Resume the sendout, wait for it, and return it."""
        return self.coupons("resume", sendout, "--wait", "--json", code=code).json

    def verify(self) -> None:
        self.coupons("verify")

    # --- other programs ---

    def publish(self, *commands: Command) -> None:
        queues.publish(self.services.broker_url, *commands)

    def amqp_publish(self, routing_key: str, command: Mapping[str, Any] | bytes) -> None:
        queues.amqp_publish(self.services.broker_url, command, routing_key)

    def dead(self) -> list[queues.Dead]:
        return queues.dead(self.services.broker_url)

    def delete_queues(self, *names: str) -> None:
        queues.delete(self.services.broker_url, *names)

    # --- results ---

    def mails(self, sendout: UUID | str | None = None) -> list[Received]:
        """Return the mails that the sink has accepted, of one sendout or of all."""
        mails = map(received, self._sink.mails())
        return [mail for mail in mails if sendout is None or mail.is_of(UUID(str(sendout)))]

    def ledger(self) -> list[Mail]:
        """Return the mails as the sink recorded them."""
        return self._sink.mails()

    def mails_come(self, at_least: int) -> None:
        """Wait until the sink has accepted at least this number of mails."""
        eventually(lambda: self._sink.ledger.read_bytes().count(b"\n") >= at_least, f"{at_least} mails")

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Return the rows of a query."""

        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.services.database_url)
            try:
                return [dict(row) for row in await connection.fetch(query, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def get_list(self, name: str) -> CouponList:
        """Return a list with its numbers of codes."""

        async def find() -> CouponList:
            async with connect(self.services.database_url) as connection:
                (found,) = await lists.get(connection, name)
                return found

        return asyncio.run(find())

    def check_invariants(self) -> None:
        """Check the invariants directly, in 0.02 s instead of the 0.3 s of `coupons verify`."""

        async def check() -> list[Invariant]:
            async with connect(self.services.database_url) as connection:
                return await invariants.check(connection)

        assert [each for each in asyncio.run(check()) if not each.ok] == []

    def leaks(self) -> dict[str, list[str]]:
        """Return the codes and addresses in every text that must have none, by the place where they are."""
        texts = self._texts()
        words = words_of(texts.values())
        known = {row["word"] for row in self.rows(KNOWN, [*words])} if words else set()
        return find_leaks(texts, known)

    def check_privacy(self) -> None:
        assert self.leaks() == {}

    def _texts(self) -> dict[str, str]:
        texts = {f"log {log.name}": log.read_text() for log in self.worker_logs}
        texts |= {f"printed by {name} ({number})": text for number, (name, text) in enumerate(self.printed)}
        texts |= {f"/readyz ({number})": page for number, page in enumerate(self.health_pages)}
        texts |= {f"{row['place']} ({number})": row["text"] for number, row in enumerate(self.rows(TEXTS))}
        if self.worker_logs:
            texts |= {f"x-reason ({number})": each.reason for number, each in enumerate(self.dead())}
        return texts

    def contents(self) -> dict[str, str]:
        """Return a digest of each table, to check that nothing changed except rejected commands and signs of life."""
        found = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'worker'")
        tables = [row["tablename"] for row in found]
        digest = "md5(string_agg(t::text, ' ' ORDER BY t::text))"
        rows = {table: table for table in tables} | {
            "command": "(SELECT * FROM command WHERE rejection_reason IS NULL)"
        }
        every = " UNION ALL ".join(
            f"SELECT '{name}' AS name, {digest} AS digest FROM {of} t" for name, of in rows.items()
        )
        return {row["name"]: row["digest"] for row in self.rows(every)}

    def state(self, job: UUID | str) -> str:
        """Return the state of a sendout or an import, or "" if it does not exist."""
        query = "SELECT state FROM sendout WHERE id = $1 UNION ALL SELECT state FROM import_job WHERE id = $1"
        found = self.rows(query, UUID(str(job)))
        return str(found[0]["state"]) if found else ""

    def becomes(self, state: str, job: UUID | str) -> None:
        """Wait until a sendout or an import is in this state."""
        eventually(lambda: self.state(job) == state, f"{job} to be {state}", seen=lambda: self.state(job))

    def becomes_all(self, state: str, sendout: UUID | str) -> None:
        """Wait until every delivery is in this state."""
        eventually(lambda: {*self.deliveries(sendout).values()} == {state}, f"all of {sendout} to be {state}")

    def deliveries(self, sendout: UUID | str) -> dict[str, str]:
        """Return the state of each delivery by address."""
        found = self.rows("SELECT address, state FROM delivery WHERE sendout_id = $1", UUID(str(sendout)))
        return {row["address"]: row["state"] for row in found}


TEXTS = """
SELECT 'sendout.reason' AS place, reason AS text FROM sendout WHERE reason IS NOT NULL
UNION ALL SELECT 'sendout.waiting_reason', waiting_reason FROM sendout WHERE waiting_reason IS NOT NULL
UNION ALL SELECT 'import_job.reason', reason FROM import_job WHERE reason IS NOT NULL
UNION ALL SELECT 'import_event.text', text FROM import_event
UNION ALL SELECT 'command.rejection_reason', rejection_reason FROM command WHERE rejection_reason IS NOT NULL"""
"""The columns that are shown to users who may not see codes and addresses."""
KNOWN = """
SELECT code AS word FROM coupon WHERE code = ANY($1::text[])
UNION SELECT address FROM delivery WHERE address = ANY($1)
UNION SELECT address FROM recipient WHERE address = ANY($1)"""


def letter(*lists: str) -> str:
    """Return a text with a code of each list."""
    return "Dear {{ first_name }}, yours: " + ", ".join(f'{{{{ coupon("{name}") }}}}' for name in lists) + "\n"


def addresses(count: int) -> list[str]:
    return [f"customer{number}@example.org" for number in range(1, count + 1)]


def codes(name: str, count: int) -> list[str]:
    """Return numbered codes: `codes("SPRING", 600)` are SPRING-00001 to SPRING-00600."""
    return [f"{name}-{number:05}" for number in range(1, count + 1)]
