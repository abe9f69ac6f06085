"""The model: a database, two workers, a simulated network and the actions of operators. It runs one step at a time."""

from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Self
from uuid import UUID

from coupons.commands import Command, ImportCoupons, ResumeSendout
from coupons.database import Connection, connect
from coupons.errors import Conflict
from coupons.settings import Settings
from coupons.states import Shortage
from coupons.store import lists, messages, retries, sendout_views, sendouts, uncertain, uploads
from coupons.store.retries import Choice
from coupons.store.uncertain import Resolution
from tests.faults.model_codes import codes
from tests.faults.model_interaction_points import Fault
from tests.faults.model_messages import Message, People
from tests.faults.model_network import Network
from tests.faults.model_oracle import CASE_SENSITIVE, Decisions, list_violations
from tests.faults.model_order import Order
from tests.faults.model_worker import Worker
from workers.loops import NO_PAUSE

SETTINGS = Settings(
    batch_size=5, max_in_flight=2, smtp_connections=1, heartbeat_seconds=44, lease_seconds=45, retry_hours=5
)
"""A few recipients already make several batches with several flushes. No heartbeat comes before the lease expires, so
only fences stop a frozen worker.
"""
TIMES = {
    "delivery": ("due_at", "deferred_since"),
    "delivery_batch": ("due_at", "lease_until"),
    "sendout": ("next_batch_at", "lease_until"),
    "sendout_wait": ("arrive_until",),
    "import_job": ("due_at", "lease_until"),
}
"""Columns that `advance_time` moves back by two hours, so that every lease expires and all deferred work is due."""
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
KEPT = ("schema_migration", "retired_code_key", "restore_guard")
"""Tables that are not empty in a new database."""
BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()
"""
STATES = "SELECT id, state FROM sendout UNION ALL SELECT id, state FROM import_job ORDER BY id"
REFUSED = "SELECT address FROM delivery WHERE sendout_id = $1 AND state = 'refused' ORDER BY number"
IN_FLIGHT = "SELECT sendout_id, unnest(in_flight) AS number FROM delivery_batch"
ARCHIVED = "SELECT name FROM coupon_list WHERE archived_at IS NOT NULL AND deleted_at IS NULL"
OPEN = "SELECT id, state FROM sendout WHERE finished_at IS NULL"
IMPORTING = "SELECT count(*) FROM import_job WHERE finished_at IS NULL"
ALTERNATIVE_TEXT = "none is left"
NEW_CODES = 1_000
"""Codes with greater numbers are used once; the others are imported into any list at any time."""
BOTH = Message(("a", "b"))
MAX_ROUNDS = 20
"""Limit of rounds in which all work must finish."""


class Model:
    def __init__(self, url: str, connection: Connection, observer: Connection, stack: AsyncExitStack) -> None:
        """`observer` is a second connection: the network reads the database with it while another statement runs."""
        self.network = Network(SETTINGS.lease_seconds, self.in_flight)
        self.workers: list[Worker] = []
        self.undelivered: list[Command] = []
        """Commands that are in a queue: they are not delivered yet, or their worker died or froze before it committed
        them, so that the broker will redeliver them.
        """
        self.imports: list[ImportCoupons] = []
        """All published imports, the latest first."""
        self._url = url
        self.connection = connection
        self._observer = observer
        self._stack = stack
        self._decisions = Decisions()
        self._order = Order()
        self._processes = 0
        self._ids = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Empty the database and open a model in it. This takes 25 ms; creating a database takes 370 ms."""
        async with connect(url) as connection, connect(url) as observer, AsyncExitStack() as stack:
            await _empty(connection)
            model = cls(url, connection, observer, stack)
            model.workers = [await model._worker(name) for name in ("worker 0", "worker 1")]
            yield model

    async def _worker(self, name: str) -> Worker:
        self._processes += 1
        return await self._stack.enter_async_context(Worker.start(name, self._url, self.network, SETTINGS))

    def new_id(self) -> UUID:
        """A new id. A repeated example gets the same ids again."""
        self._ids += 1
        return UUID(int=self._ids)

    def new_codes(self, count: int) -> tuple[str, ...]:
        """Codes that no list has had."""
        return codes(NEW_CODES + self.new_id().int for _ in range(count))

    # --- operators ------------------------------------------------------------------------------------------------

    async def attempt(self, *actions: Awaitable[object]) -> None:
        """Await each action; ignore conflicts."""
        for action in actions:
            with suppress(Conflict):
                await action

    async def create_list(self, name: str, shortage: Shortage) -> None:
        await lists.create(
            self.connection,
            name,
            description="",
            shortage=shortage,
            alternative_text=ALTERNATIVE_TEXT,
            preview_text=None,
            case_sensitive=name == CASE_SENSITIVE,
        )

    async def add_stock(self) -> None:
        """Add two lists with enough codes, and a message with a code of each list."""
        await self.create_list("a", Shortage.PAUSE)
        await self.create_list("b", Shortage.TEXT)
        for name in ("a", "b"):
            await self.receive(ImportCoupons(id=self.new_id(), list=name, codes=self.new_codes(500)), self.workers[0])
        await self.save_message(BOTH)
        await self.run_all(self.workers[0])

    async def delete_list(self, name: str) -> None:
        await lists.archive(self.connection, name)
        await lists.delete(self.connection, name)

    async def pause(self, sendout: UUID) -> None:
        await sendouts.pause(self.connection, sendout, "by an operator")

    async def cancel(self, sendout: UUID) -> None:
        await sendouts.cancel(self.connection, sendout)

    async def save_message(self, message: Message) -> None:
        await messages.save(
            self.connection, message.name, message.parts, sender="shop@example.org", reply_to=None, declared=()
        )

    async def upload(self, people: People) -> str:
        """Upload a file of these people and return its source."""

        async def pieces() -> AsyncIterator[bytes]:
            yield "".join(f"{line}\n" for line in ("email,tier", *map(",".join, people.items()))).encode()

        upload = await uploads.store(self.connection, "people.csv", pieces(), max_bytes=1_000, upload_id=self.new_id())
        return f"upload:{upload.id}"

    async def retry(self, sendout: UUID, choice: Choice) -> None:
        await retries.retry(self.connection, sendout, choice)

    async def refused_addresses(self, sendout: UUID) -> list[str]:
        return [row["address"] for row in await self.connection.fetch(REFUSED, sendout)]

    async def resolve(self, sendout: UUID, how: Resolution) -> None:
        mails = {(sendout, mail.number) async for mail in uncertain.iter_mails(self.connection, sendout)}
        assert await uncertain.resolve(self.connection, sendout, how) == len(mails)
        if how == "resend":
            self._decisions.resend(mails, self.network.ledger)
        else:
            self._decisions.accepted |= mails

    # --- workers -------------------------------------------------------------------------------------------------

    async def receive(self, command: Command, worker: Worker, fault: Fault | None = None) -> Any:
        """Deliver a command to a worker."""
        if isinstance(command, ImportCoupons):
            self.publish(command)
        else:
            await self._order.expect(self.connection, command, at_once=fault is None)
        result = await self.run(worker, worker.intake._commit(command), fault)
        if worker in self.workers and not worker.is_frozen:
            self.undelivered = [each for each in self.undelivered if each != command]
        elif command not in self.undelivered:
            self.undelivered.append(command)
        return result

    def publish(self, command: ImportCoupons) -> None:
        """Put an import into its queue. Others may wait for it before it is delivered."""
        if command not in self.imports:
            self.imports.insert(0, command)
            self.undelivered.append(command)

    async def run(self, worker: Worker, work: Coroutine[Any, Any, Any], fault: Fault | None = None) -> Any:
        """Let a worker run some work and return the result. Replaces a worker that died."""
        result = await worker.run(work, fault)
        await self._replace_dead()
        return result

    async def resume(self, worker: Worker, fault: Fault | None = None) -> None:
        """Let a frozen worker continue its work."""
        await worker.resume(fault)
        await self._replace_dead()

    async def kill(self, worker: Worker) -> None:
        await worker.kill()
        await self._replace_dead()

    async def _replace_dead(self) -> None:
        for number, worker in enumerate(self.workers):
            if worker.points.dead:
                while await self.connection.fetchval(BUSY):
                    pass
                self.workers[number] = await self._worker(worker.points.name)

    async def run_all(self, worker: Worker, fates: Sequence[str] = ()) -> None:
        """Let a worker run every role until nothing is left to do."""
        worker.relays.set_fates(fates)
        await self.run(worker, worker.sweeper.step())
        for role in (worker.importer, worker.preparer, worker.deliverer):
            while await self.run(worker, role.step()) == NO_PAUSE:
                pass

    async def advance_time(self) -> None:
        for table, columns in TIMES.items():
            earlier = ", ".join(f"{column} = {column} - interval '2 hours'" for column in columns)
            await self.connection.execute(f"UPDATE {table} SET {earlier}")
        self.network.advance_time()

    # --- state ---------------------------------------------------------------------------------------------

    async def sendouts(self) -> list[UUID]:
        return [row["id"] for row in await self.connection.fetch("SELECT id FROM sendout ORDER BY id")]

    async def states(self) -> list[tuple[Any, ...]]:
        """The ids and states of all sendouts and imports."""
        return [tuple(row) for row in await self.connection.fetch(STATES)]

    async def in_flight(self) -> set[tuple[UUID, int]]:
        return {(row["sendout_id"], row["number"]) for row in await self._observer.fetch(IN_FLIGHT)}

    async def check(self, *, ended: bool = False) -> None:
        found = await list_violations(
            self.connection, self.network.ledger, self._decisions, processes=self._processes, ended=ended
        )
        found += await self._order.list_violations(self.connection)
        found += self.network.without_intent
        assert not found, "\n".join(found)

    async def finish_all(self) -> None:
        """End all faults, import missing codes and run all work: then every mail must have an outcome."""
        self.network.refuses = None
        for row in await self.connection.fetch(ARCHIVED):  # otherwise missing codes cannot be imported into them
            await lists.restore(self.connection, row["name"])
        for worker in [each for each in self.workers if each.is_frozen]:
            await worker.resume()
        worker = self.workers[0]
        for command in [*self.undelivered]:
            await self.receive(command, worker)
        for _ in range(MAX_ROUNDS):
            await self.advance_time()
            await self.run_all(worker)
            if not await self._resume_open(worker):
                break
        else:
            raise AssertionError(f"does not finish: {await self.states()}")
        await self.check(ended=True)

    async def _resume_open(self, worker: Worker) -> bool:
        """Resume unfinished sendouts; return whether any sendout or import was unfinished."""
        rest = await self.connection.fetch(OPEN)
        for row in rest:
            if row["state"] == "interrupted":
                await self._import_missing(worker, row["id"])
            if row["state"] in sendout_views.RESUMED_STATES:
                await self.receive(ResumeSendout(id=self.new_id(), sendout=row["id"]), worker)
        return bool(rest or await self.connection.fetchval(IMPORTING))

    async def _import_missing(self, worker: Worker, sendout: UUID) -> None:
        for each in (await sendout_views.get(self.connection, sendout)).lists:
            if each.missing:
                fresh = ImportCoupons(id=self.new_id(), list=each.name, codes=self.new_codes(each.missing))
                await self.receive(fresh, worker)


async def _empty(connection: Connection) -> None:
    """Truncate the tables that are empty in a new database."""
    tables = [row["relname"] for row in await connection.fetch(TABLES)]
    used = [each for each in tables if each not in KEPT]
    await connection.execute(f"TRUNCATE {', '.join(used)} RESTART IDENTITY")
