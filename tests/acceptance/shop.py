"""A shop that uses the Coupon Manager as everybody does: by its command line, its workers, and its queues."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import aio_pika
import asyncpg

from coupons.commands import Command
from producers.client import Publisher
from producers.demo.services import Services, Sink
from tests.acceptance.mails import Received, received

COUPONS = Path(sys.executable).with_name("coupons")
DONE, FAILED, WRONG_USAGE, REJECTED_LINES, INTERRUPTED = range(5)
"""Exit codes."""

LIMIT_SECONDS = 30.0
"""For anything to happen; what is waited for takes a tenth of it."""
POLL_SECONDS = 0.02
COMMAND_LIMIT_SECONDS = 60

TEXT = 'Dear {{ first_name }},\nyour code: {{ coupon("spring-10") }}\n'
HTML = '<p>Dear {{ first_name }},</p><p>your code: <b>{{ coupon("spring-10") }}</b></p>\n'

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """How a command line ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Dead:
    """A command that workers rejected."""

    reason: str
    body: bytes


class Worker:
    """A running `coupons worker`."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def says(self, words: str) -> None:
        """Wait until its log says so."""
        eventually(lambda: words in self.log or self._process.poll() is not None, f"{words!r} in a worker's log")
        assert words in self.log, f"the worker ended with exit code {self._process.returncode}:\n{self.log}"

    def kill(self) -> None:
        """As a machine that loses its power."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(LIMIT_SECONDS)
        finally:
            self._process.kill()

    def check(self) -> None:
        """It has ended well, or was killed; it met no defect, and wrote neither codes nor addresses into its log."""
        if self._process.poll() is None:
            assert self.stop() == DONE
        assert self._process.returncode in {DONE, -signal.SIGKILL}
        assert "defect" not in self.log
        assert "Traceback" not in self.log
        assert "@example.org" not in self.log


class Shop:
    """Services of its own, the commands that use them, and a look at what came of it."""

    def __init__(self, services: Services, sink: Sink, folder: Path) -> None:
        self.services = services
        self._sink = sink
        self._folder = folder
        self.worker_logs: list[Path] = []

    # --- the command line ---

    def coupons(self, *arguments: object, code: int = DONE, **settings: object) -> Result:
        """Run `coupons …` to its end, which must be this exit code; `settings` are COUPONS_… variables."""
        result = self.begin(*arguments, **settings)()
        assert result.code == code, f"coupons {' '.join(map(str, arguments))}: {result}"
        return result

    def begin(self, *arguments: object, **settings: object) -> Callable[[], Result]:
        """Start `coupons …`; what is returned waits for its end."""
        process = self._start(arguments, settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def end() -> Result:
            try:
                out, err = process.communicate(timeout=COMMAND_LIMIT_SECONDS)
            finally:
                process.kill()
            return Result(process.returncode, out.decode(), err.decode())

        return end

    def together(self, *commands: Sequence[object]) -> list[Result]:
        """Run several at the same time, each to a good end."""
        results = [end() for end in [self.begin(*command) for command in commands]]
        assert [result.code for result in results] == [DONE] * len(results), results
        return results

    def on_terminal(self, *arguments: object, environment: dict[str, str] | None = None) -> Result:
        """Run `coupons …` with a terminal as its stdout and stderr; `err` is all that it shows."""
        ours, theirs = pty.openpty()
        process = self._start(arguments, {}, environment=environment or {}, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how Linux says that nobody is at the other end any more
            while piece := os.read(ours, 65_536):
                shown += piece
        os.close(ours)
        return Result(process.wait(COMMAND_LIMIT_SECONDS), "", shown.decode())

    def _start(
        self,
        arguments: Sequence[object],
        settings: dict[str, object],
        *,
        stdout: int,
        stderr: int,
        environment: dict[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [COUPONS, *map(str, arguments)],
            env=self._environment(settings) | (environment or {}),
            cwd=self._folder,  # no .env of somebody else
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def _environment(self, settings: dict[str, object]) -> dict[str, str]:
        foreign = {name for name in os.environ if name.startswith("COUPONS_")} | {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}
        inherited = {name: value for name, value in os.environ.items() if name not in foreign}
        ours = {"COUPONS_SENDER": "Garden Shop <shop@example.org>", "TERM": "xterm-256color"}
        given = {f"COUPONS_{name.upper()}": str(value) for name, value in settings.items()}
        return inherited | ours | self.services.environment() | given

    # --- what a shop does every day ---

    def file(self, name: str, content: str | bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def prepare(
        self,
        group: str,
        addresses: Iterable[str],
        message: str,
        *lists: tuple[str, Iterable[str]],
        options: Sequence[str] = (),
        text: str = TEXT,
        html: str = HTML,
    ) -> None:
        """Lists (all with these options) with their codes, a group and a message that is written for them."""
        self.together(self.group_import(group, addresses), *(("list", "create", name, *options) for name, _ in lists))
        imports = (("import", self.code_file(name, codes), "--list", name, "--wait") for name, codes in lists)
        self.together(self.message_save(message, text=text, html=html), *imports)

    def create_list(self, name: str, *options: str) -> None:
        self.coupons("list", "create", name, *options)

    def import_codes(self, name: str, codes: Iterable[str], *options: object, code: int = DONE) -> Result:
        return self.coupons("import", self.code_file(name, codes), "--list", name, "--wait", *options, code=code)

    def import_group(self, name: str, addresses: Iterable[str]) -> None:
        rows = (f"{address};Ada {number}\n" for number, address in enumerate(addresses, start=1))
        self.coupons("group", "import", self.file(f"{name}.csv", "email;first_name\n" + "".join(rows)), "--group", name)

    def save_message(
        self, name: str, *options: str, text: str = TEXT, html: str = HTML, subject: str = "Hi {{ first_name }}"
    ) -> None:
        files = "--text", self.file(f"{name}.txt", text), "--html", self.file(f"{name}.html", html)
        self.coupons("message", "save", name, "--subject", subject, *files, *options)

    def send(self, message: str, group: str, code: int = DONE) -> Any:
        """The sendout as it is when it has ended or is interrupted."""
        return self.coupons("send", "--message", message, "--group", group, "--wait", "--json", code=code).json

    def start_sending(self, message: str, group: str) -> UUID:
        return UUID(self.coupons("send", "--message", message, "--group", group).out.strip())

    def resume(self, sendout: UUID | str, code: int = DONE) -> Any:
        return self.coupons("resume", sendout, "--wait", "--json", code=code).json

    def list_named(self, name: str) -> Any:
        """A list in numbers."""
        (found,) = (each for each in self.coupons("list", "ls", "--json").json if each["name"] == name)
        return found

    # --- workers ---

    @contextmanager
    def worker(self, *roles: str, ready: bool = True, **settings: object) -> Iterator[Worker]:
        """A worker process with these roles, by default all, that takes commands (unless not `ready`)."""
        log = self._folder / f"worker-{len(self.worker_logs) + 1}.log"
        self.worker_logs.append(log)
        arguments = ["worker", *(part for role in roles for part in ("--role", role))]
        with log.open("wb") as output:
            process = self._start(arguments, settings, stdout=output.fileno(), stderr=output.fileno())
        worker = Worker(process, log)
        try:
            if ready:
                worker.says("taking commands")
            yield worker
            worker.check()
        finally:
            process.kill()
            process.wait()

    # --- the queues ---

    def publish(self, *commands: Command) -> None:
        """With the Python client, over one connection."""

        async def publish() -> None:
            async with Publisher.connect(self.services.broker_url) as publisher:
                for command in commands:
                    await publisher.publish(command)

        asyncio.run(publish())

    def amqp_publish(self, command: dict[str, Any] | bytes, key: str | None = None) -> None:
        """With Debian's amqp-tools, which know nothing of us."""
        body = command if isinstance(command, bytes) else json.dumps(command).encode()
        routing_key = key or (command["type"] if isinstance(command, dict) else "sendout")
        options = ["--url", self.services.broker_url, "--exchange", "coupons", "--routing-key", routing_key]
        subprocess.run(["amqp-publish", *options, "--persistent"], input=body, check=True, timeout=LIMIT_SECONDS)

    def dead(self) -> list[Dead]:
        """What is in the queue of rejected commands; it stays there."""

        async def look() -> list[Dead]:
            connection = await aio_pika.connect(self.services.broker_url)
            async with connection, connection.channel() as channel:
                queue = await channel.get_queue("coupons.dead")
                found = []
                while message := await queue.get(fail=False):
                    found.append(Dead(str(message.headers["x-reason"]), message.body))
                return found

        return asyncio.run(look())

    # --- what came of it ---

    def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """The database's own word."""

        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.services.database_url)
            try:
                return [dict(row) for row in await connection.fetch(query, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def contents(self) -> dict[str, str]:
        """A fingerprint of every table, to see that nothing was changed."""
        found = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = [row["tablename"] for row in found]
        digest = "md5(string_agg(t::text, ' ' ORDER BY t::text))"
        every = " UNION ALL ".join(f"SELECT '{table}' AS name, {digest} AS digest FROM {table} t" for table in tables)
        return {row["name"]: row["digest"] for row in self.rows(every)}

    def sendout_is(self, sendout: UUID | str, *states: str) -> str:
        """Wait until it is in one of these states."""

        def state() -> str | None:
            found = self.rows("SELECT state FROM sendout WHERE id = $1", UUID(str(sendout)))
            return next((row["state"] for row in found if row["state"] in states), None)

        return eventually(state, f"sendout {' or '.join(states)}")

    def import_ends(self, job: UUID | str) -> None:
        """Wait until it is finished."""

        def state() -> str:
            found = self.rows("SELECT state FROM import_job WHERE id = $1", UUID(str(job)))
            return found[0]["state"] if found else ""

        eventually(lambda: state() in {"finished", "failed"}, "the end of an import")
        assert state() == "finished"

    def deliveries(self, sendout: UUID | str) -> dict[str, str]:
        """The state of each delivery by address."""
        found = self.rows("SELECT address, state FROM delivery WHERE sendout_id = $1", UUID(str(sendout)))
        return {row["address"]: row["state"] for row in found}

    def mails(self, sendout: UUID | str | None = None) -> list[Received]:
        """All mails that the sink has accepted, or those of a sendout."""
        mails = map(received, self._sink.mails())
        return [mail for mail in mails if sendout is None or mail.is_of(UUID(str(sendout)))]

    def mails_come(self, at_least: int) -> None:
        """Wait until the sink has accepted so many."""
        eventually(lambda: self._sink.ledger.read_bytes().count(b"\n") >= at_least, f"{at_least} mails")

    def verify(self) -> None:
        self.coupons("verify")


def eventually(fact: Callable[[], T | None], what: str, *, limit_seconds: float = LIMIT_SECONDS) -> T:
    """Poll until `fact` says something true, and return it."""
    deadline = time.monotonic() + limit_seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, f"waited {limit_seconds:.0f} s for {what}"
        time.sleep(POLL_SECONDS)
    return found


def addresses(count: int, name: str = "customer") -> list[str]:
    return [f"{name}{number}@example.org" for number in range(1, count + 1)]


def codes(name: str, *numbers: int) -> list[str]:
    """`codes("SPRING", 600)` are SPRING-00001 to SPRING-00600, `codes("SPRING", 600, 1_000)` the 400 after them."""
    return [f"{name}-{number + 1:05}" for number in range(*numbers)]
