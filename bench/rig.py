"""The test rig of all benchmarks. It runs private services, Postfix's smtp-sink and smtp-source, and workers."""

import asyncio
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

from coupons.commands import ImportCoupons, StartSendout
from coupons.database import Connection, connect
from coupons.mail import CompiledEmail, Envelope, compile_email, message_id
from coupons.migrate import migrate
from coupons.store import sendout_views
from coupons.templates.rendering import Coupon, Parts, Template
from producers.client import Publisher
from sandbox.process import free_ports, is_free, running, wait_until
from sandbox.services import Services
from tests.factories import add_codes, add_group, add_list, save_message
from tests.waiting import until

COUPONS = Path(sys.executable).with_name("coupons")
PROGRAMS = Path("/usr/sbin")  # on Debian, this folder is on the PATH of root only
POLL_SECONDS = 0.05
LIMIT_SECONDS = 3_600
CONNECTIONS = 10

HTML = "<p>Hello {{ first_name }},</p>\n" + "<p>the days are getting longer, and there is a lot to plant.</p>\n" * 25
TEXT = "Hello {{ first_name }},\n"
SUBJECT = "Your voucher, {{ first_name }}"
SENDER = "Garden Shop <shop@example.org>"
SENDOUT = UUID("3d1cbb6c-6c1f-4c0e-9a30-7b4c2c1f3a55")


@dataclass
class Rig:
    """Running services with a message, its list of codes, and groups of the requested sizes."""

    services: Services
    folder: Path
    connection: Connection
    groups: set[str] = field(default_factory=set)
    codes: int = 0
    cores: dict[str, float] = field(default_factory=dict)
    """The average number of cores that each program used during the last sendout."""

    async def end_to_end(self, recipients: int) -> float:
        """Run a sendout; return its mails/s, from publishing the command to the last committed outcome.

        This includes the snapshot of the recipients, the reservation and assignment of codes, and the intents to send.
        The list has exactly one code per recipient.
        """
        command = StartSendout(message="bench", group=await self._prepare(recipients))

        async def finished() -> bool:
            sendout = await sendout_views.find(self.connection, command.id)
            return sendout is not None and sendout.state == "finished" and sendout.sent == recipients

        before = cpu_seconds()
        seconds = await time_command(self.services, command, finished)
        self.cores = {name: (spent - before.get(name, 0.0)) / seconds for name, spent in cpu_seconds().items()}
        return recipients / seconds

    async def _prepare(self, recipients: int) -> str:
        """Add a group (unless it exists) and a code for each recipient; return the group's name.

        Vacuums and writes a checkpoint, so that loading these data is not measured.
        """
        group = f"bench-{recipients}"
        if group not in self.groups:
            await add_group(self.connection, group, recipients)
            self.groups.add(group)
        codes = [f"BENCH-{number:09}" for number in range(self.codes, self.codes + recipients)]
        self.codes += recipients
        await add_codes(self.connection, "bench", codes)
        await self.connection.execute("VACUUM ANALYZE recipient, coupon", timeout=600)
        await self.connection.execute("CHECKPOINT", timeout=600)
        return group

    @contextmanager
    def workers(
        self, smtp_url: str, *, count: int = 1, settings: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[list[int]]:
        """Run `count` workers that send to `smtp_url`; yield their process ids."""
        environment = {**self.services.environment(), "COUPONS_SMTP_URL": smtp_url, **settings}
        with ExitStack() as stack:
            yield [stack.enter_context(worker(environment, self.folder / f"worker-{n}.log")) for n in range(count)]


@asynccontextmanager
async def open_rig(services: Services, folder: Path) -> AsyncIterator[Rig]:
    await migrate(services.database_url)
    async with connect(services.database_url) as connection:
        await add_list(connection, "bench")
        await save_message(connection, "bench", "bench", html=HTML)
        yield Rig(services, folder, connection)


async def time_command(
    services: Services, command: ImportCoupons | StartSendout, fact: Callable[[], Awaitable[bool]]
) -> float:
    """Publish a command; return the seconds until `fact` holds."""
    async with Publisher.connect(services.broker_url) as publisher:
        begun = time.perf_counter()
        await publisher.publish(command)
        await until(fact, "the command to be done", within=LIMIT_SECONDS, every=POLL_SECONDS)
        return time.perf_counter() - begun


async def compare(
    rounds: int, baseline: Callable[[], Awaitable[float]], ours: Callable[[], Awaitable[float]]
) -> tuple[float, float, float]:
    """Measure both sides alternately; return the baseline's median, our median and the median ratio of adjacent runs.

    The speed of a machine changes within minutes, but hardly between adjacent runs. The side that is measured first
    alternates too, because an idle disk is faster than a disk that was just written to.
    """
    pairs = []
    for number in range(rounds):
        if number % 2:
            own, base = await ours(), await baseline()
        else:
            base, own = await baseline(), await ours()
        pairs.append((base, own))
    baselines, owns = zip(*pairs, strict=True)
    return statistics.median(baselines), statistics.median(owns), statistics.median(b / a for a, b in pairs)


@contextmanager
def worker(environment: dict[str, str], log: Path) -> Iterator[int]:
    """Run a `coupons worker`; yield its process id when it consumes commands."""
    log.unlink(missing_ok=True)
    with running([COUPONS, "worker"], log=log, environment=environment) as process:
        wait_until(
            lambda: "consuming commands" in log.read_text(encoding="utf-8"),
            process, name="The worker", log=log, limit_seconds=30,
        )  # fmt: skip
        yield next(pid for pid in descendants(process.pid) if command_line(pid)[0] != "/bin/sh")


@contextmanager
def smtp_sink(log: Path) -> Iterator[str]:
    """Run Postfix's smtp-sink; yield its "host:port". It is written in C, replies at once and stores nothing."""
    [port] = free_ports(1)
    as_account = ["-u", "postfix"] if os.geteuid() == 0 else []
    with running([PROGRAMS / "smtp-sink", *as_account, f"127.0.0.1:{port}", "1000"], log=log) as process:
        wait_until(lambda: not is_free(port), process, name="smtp-sink", log=log, limit_seconds=10)
        yield f"127.0.0.1:{port}"


async def smtp_source(address: str, mails: int) -> float:
    """Mails/s of Postfix's smtp-source, with our number of connections and size of mails.

    It is written in C and does not use pipelining.
    """
    headers = 140  # approximate octets, which -l does not count
    size = len(envelopes()(0).data) - headers
    arguments = f"-d -s {CONNECTIONS} -l {size} -m {mails} -f shop@example.org -t customer@example.org".split()
    begun = time.perf_counter()
    await run_program(PROGRAMS / "smtp-source", *arguments, address)
    return mails / (time.perf_counter() - begun)


async def run_program(*command: str | Path, environment: dict[str, str] | None = None) -> str:
    """Run a program and return its output. Raises RuntimeError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | (environment or {})
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {errors.decode()}")
    return output.decode()


def envelopes() -> Callable[[int], Envelope]:
    """A function that renders the mail of recipient number n as a worker does. It has 2 kB, with a name and a code."""
    compiled = compiled_message()

    def write(number: int) -> Envelope:
        return compiled.write(
            rcpt=f"c{number}@example.org",
            message_id=message_id(SENDOUT, number, "example.org"),
            date=datetime.now(UTC),
            attributes={"first_name": f"Zoë {number}", "email": f"c{number}@example.org"},
            coupons={"bench": Coupon(f"BENCH-{number:09}", is_code=True)},
        )

    return write


def compiled_message() -> CompiledEmail:
    code = '{{ coupon("bench") }}\n'
    return compile_email(template=Template(Parts(subject=SUBJECT, text=TEXT + code, html=HTML + code)), sender=SENDER)


def resident_mib(pid: int) -> float:
    """Peak resident memory of a process (VmHWM of Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else 0.0


def cpu_seconds() -> dict[str, float]:
    """CPU seconds of all descendants of this process, by program, including ended children that were waited for."""
    ticks = os.sysconf("SC_CLK_TCK")
    spent: dict[str, float] = {}
    for pid in descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            name, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").partition("(")[2].rpartition(")")
            spent[name] = spent.get(name, 0.0) + sum(map(int, rest.split()[11:15])) / ticks
    return spent


def descendants(pid: int) -> Iterator[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        children = [found.read_text(encoding="ascii").split() for found in Path(f"/proc/{pid}/task").glob("*/children")]
        for child in map(int, itertools.chain(*children)):
            yield child
            yield from descendants(child)


def command_line(pid: int) -> Sequence[str]:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
