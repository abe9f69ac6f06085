"""The shop of the model: a database of its own, two workers, the network, and what people do. One thing at a time."""

from collections.abc import AsyncIterator, Awaitable, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Self
from uuid import UUID

from coupons.commands import Command, ImportCoupons, ResumeSendout
from coupons.database import Connection, connected
from coupons.errors import Conflict
from coupons.settings import Settings
from coupons.states import Shortage
from coupons.store import lists, messages, sendout_views, sendouts, uncertain, uploads
from coupons.store.uncertain import Resolution
from coupons.templates.rendering import Parts
from tests.faults.model_interaction_points import Fault
from tests.faults.model_network import Network
from tests.faults.model_oracle import Decided, wrongs
from tests.faults.model_worker import Worker
from workers.loops import NO_PAUSE

SETTINGS = Settings(
    batch_size=5, max_in_flight=2, smtp_connections=1, heartbeat_seconds=44, lease_seconds=45, retry_hours=5
)
"""A few recipients are several batches, a batch is several flushes. No heart beats: only fences keep out who sleeps."""
TIMES = {
    "delivery": ("due_at", "deferred_since"),
    "delivery_batch": ("due_at", "lease_until"),
    "sendout": ("next_batch_at", "lease_until"),
    "import_job": ("due_at", "lease_until"),
}
"""Two hours later each lease is over, and all that was deferred is due."""
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
KEPT = ("schema_migration", "retired_code_key", "restore_guard")
"""What a new database holds already."""
BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()
"""
STATES = "SELECT id, state FROM sendout UNION ALL SELECT id, state FROM import_job ORDER BY id"
IN_HAND = "SELECT sendout_id, unnest(in_flight) AS number FROM delivery_batch"
OPEN = "SELECT id, state FROM sendout WHERE finished_at IS NULL"
IMPORTING = "SELECT count(*) FROM import_job WHERE finished_at IS NULL"
ALTERNATIVE_TEXT = "none is left"
ROUNDS = 20
"""In so many everything comes to its end, or it never does."""


class Shop:
    def __init__(self, url: str, connection: Connection, looking: Connection, stack: AsyncExitStack) -> None:
        """`looking`: a second connection, for the network while a worker is at work."""
        self.network = Network(SETTINGS.lease_seconds, self.in_flight)
        self.workers: list[Worker] = []
        self.unheard: list[Command] = []
        """Commands whose worker died or stood still before it had noted them: the broker brings them again."""
        self._url = url
        self.connection = connection
        self._looking = looking
        self._stack = stack
        self._decided = Decided()
        self._ids = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[Self]:
        """In an emptied database: that takes 25 ms, a new one 370."""
        async with connected(url) as connection, connected(url) as looking, AsyncExitStack() as stack:
            await _empty(connection)
            shop = cls(url, connection, looking, stack)
            shop.workers = [await shop._worker(name) for name in ("worker 0", "worker 1")]
            yield shop

    async def _worker(self, name: str) -> Worker:
        return await self._stack.enter_async_context(Worker.started(name, self._url, self.network, SETTINGS))

    def new_id(self) -> UUID:
        """The same ones each time that an example is tried."""
        self._ids += 1
        return UUID(int=self._ids)

    # --- people --------------------------------------------------------------------------------------------------

    async def ask(self, *acts: Awaitable[object]) -> None:
        """One after the other. A person may be refused."""
        for act in acts:
            with suppress(Conflict):
                await act

    async def create_list(self, name: str, shortage: Shortage) -> None:
        await lists.create(
            self.connection,
            name,
            description="",
            shortage=shortage,
            alternative_text=ALTERNATIVE_TEXT,
            preview_text=None,
        )

    async def stock(self) -> None:
        """Enough codes, and a message that shows one of each list."""
        await self.create_list("a", Shortage.PAUSE)
        await self.create_list("b", Shortage.TEXT)
        codes = tuple(f"C{self.new_id().int}" for _ in range(500))
        for name in ("a", "b"):
            await self.comes(ImportCoupons(id=self.new_id(), list=name, codes=codes), self.workers[0])
        await self.save_message("m", ("a", "b"))
        await self.do_all(self.workers[0])

    async def delete_list(self, name: str) -> None:
        await lists.archive(self.connection, name)
        await lists.delete(self.connection, name)

    async def pause(self, sendout: UUID) -> None:
        await sendouts.pause(self.connection, sendout, "by an operator")

    async def cancel(self, sendout: UUID) -> None:
        await sendouts.cancel(self.connection, sendout)

    async def save_message(self, name: str, of_lists: Collection[str]) -> None:
        text = "".join(f'{each}={{{{ coupon("{each}") }}}}\n' for each in sorted(of_lists))
        parts = Parts(subject="Your codes", text=text, html=None)
        await messages.save(self.connection, name, parts, sender="shop@example.org", reply_to=None, declared=())

    async def upload(self, people: Sequence[str]) -> str:
        """The source of a file of these addresses."""

        async def pieces() -> AsyncIterator[bytes]:
            yield "".join(f"{line}\n" for line in ("email", *people)).encode()

        upload = await uploads.keep(self.connection, "people.csv", pieces(), max_bytes=1_000, upload_id=self.new_id())
        return f"upload:{upload.id}"

    async def resolve(self, sendout: UUID, how: Resolution) -> None:
        mails = {(sendout, mail.number) async for mail in uncertain.listed(self.connection, sendout)}
        assert await uncertain.resolve(self.connection, sendout, how) == len(mails)
        if how == "resend":
            self._decided.resend(mails, self.network.ledger)
        else:
            self._decided.accepted |= mails

    # --- workers -------------------------------------------------------------------------------------------------

    async def comes(self, command: Command, worker: Worker, fault: Fault | None = None) -> Any:
        """A command to a worker."""
        came_of = await self.works(worker, worker.intake._commit(command), fault)
        if worker in self.workers and not worker.stands_still:
            self.unheard = [each for each in self.unheard if each != command]
        elif command not in self.unheard:
            self.unheard.append(command)
        return came_of

    async def works(self, worker: Worker, work: Coroutine[Any, Any, Any], fault: Fault | None = None) -> Any:
        """What came of it; a worker that has died is started again."""
        came_of = await worker.does(work, fault)
        await self._replace_dead()
        return came_of

    async def goes_on(self, worker: Worker, fault: Fault | None = None) -> None:
        """One that stood still."""
        await worker.goes_on(fault)
        await self._replace_dead()

    async def kill(self, worker: Worker) -> None:
        await worker.is_killed()
        await self._replace_dead()

    async def _replace_dead(self) -> None:
        for number, worker in enumerate(self.workers):
            if worker.contacts.dead:
                while await self.connection.fetchval(BUSY):
                    pass
                self.workers[number] = await self._worker(worker.contacts.name)

    async def do_all(self, worker: Worker, fates: Sequence[str] = ()) -> None:
        """Whatever there is to do for it now."""
        worker.wire.meets(fates)
        await self.works(worker, worker.sweeper.step())
        for role in (worker.importer, worker.preparer, worker.deliverer):
            while await self.works(worker, role.step()) == NO_PAUSE:
                pass

    async def time_goes_on(self) -> None:
        for table, columns in TIMES.items():
            earlier = ", ".join(f"{column} = {column} - interval '2 hours'" for column in columns)
            await self.connection.execute(f"UPDATE {table} SET {earlier}")
        self.network.time_goes_on()

    # --- what is true --------------------------------------------------------------------------------------------

    async def sendouts(self) -> list[UUID]:
        return [row["id"] for row in await self.connection.fetch("SELECT id FROM sendout ORDER BY id")]

    async def states(self) -> list[tuple[Any, ...]]:
        """Of every sendout and import."""
        return [tuple(row) for row in await self.connection.fetch(STATES)]

    async def in_flight(self) -> set[tuple[UUID, int]]:
        return {(row["sendout_id"], row["number"]) for row in await self._looking.fetch(IN_HAND)}

    async def check(self, *, ended: bool = False) -> None:
        found = await wrongs(self.connection, self.network.ledger, self._decided, ended=ended)
        found += self.network.unintended
        assert not found, "\n".join(found)

    async def come_to_the_end(self) -> None:
        """Nothing fails any more, every list gets the codes that it lacks: then every mail has an outcome."""
        for worker in [each for each in self.workers if each.stands_still]:
            await worker.goes_on()
        worker = self.workers[0]
        for command in self.unheard:
            await self.comes(command, worker)
        for _ in range(ROUNDS):
            await self.time_goes_on()
            await self.do_all(worker)
            if not await self._go_on_with_the_rest(worker):
                break
        else:
            raise AssertionError(f"never ends: {await self.states()}")
        await self.check(ended=True)

    async def _go_on_with_the_rest(self, worker: Worker) -> bool:
        """Whether there is any."""
        rest = await self.connection.fetch(OPEN)
        for row in rest:
            if row["state"] == "interrupted":
                await self._bring_missing_codes(worker, row["id"])
            if row["state"] in sendout_views.RESUMED_STATES:
                await self.comes(ResumeSendout(id=self.new_id(), sendout=row["id"]), worker)
        return bool(rest or await self.connection.fetchval(IMPORTING))

    async def _bring_missing_codes(self, worker: Worker, sendout: UUID) -> None:
        for each in (await sendout_views.named(self.connection, sendout)).lists:
            if each.missing:
                fresh = tuple(f"C{self.new_id().int}" for _ in range(each.missing))
                await self.comes(ImportCoupons(id=self.new_id(), list=each.name, codes=fresh), worker)


async def _empty(connection: Connection) -> None:
    """But for what a new database holds."""
    tables = [row["relname"] for row in await connection.fetch(TABLES)]
    used = [each for each in tables if each not in KEPT]
    await connection.execute(f"TRUNCATE {', '.join(used)} RESTART IDENTITY")
