"""A system for fault tests: services behind proxies, workers that can be killed, an oracle that checks the result."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from coupons.commands import Command
from sandbox.process import free_ports
from sandbox.services import Services, Sink
from tests.acceptance.processes import Worker
from tests.acceptance.system import Shop
from tests.faults.oracle import Verdict, check_sendouts
from tests.faults.proxy import FaultProxy
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
LONG = os.environ.get("COUPONS_FAULTS") == "long"
RECOVERY_SECONDS = 60
"""Limit for the workers to recover automatically after a fault has ended."""
END_SECONDS = 1_800 if LONG else 60
QUICK_TAKEOVER: dict[str, Any] = {"lease_seconds": 3, "heartbeat_seconds": 0.5, "sweep_seconds": 1}
"""Settings with which other workers soon take over the work of a dead one."""


def size(*, short: int, long: int) -> int:
    """A number that is smaller in `make test` than in `make faults`."""
    return long if LONG else short


@dataclass(frozen=True, slots=True)
class FaultResult:
    """A row of the table in docs/explanation/reliability.md."""

    fault: str
    rounds: int
    mails: int
    lost: int
    duplicates: int
    two_codes: int
    uncertain: int
    recovered_seconds: float | None


class FaultySink:
    """A process of `python -m tests.faults.sink`. It can be killed and restarted on the same port and ledger."""

    def __init__(self, ledger: Path, **options: object) -> None:
        self.ledger = ledger
        (self._port,) = free_ports(1)
        self.url = f"smtp://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start(**options)

    def start(self, **options: object) -> None:
        """Start or restart the sink with these options: `odds` as JSON, `seed`, `delay`, `late`."""
        if self.ledger.exists() and self.ledger.read_bytes()[-1:] not in (b"", b"\n"):
            with self.ledger.open("ab") as torn:  # the sink was killed in the middle of a line
                torn.write(b"\n")
        chosen = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "tests.faults.sink", "--ledger", str(self.ledger), "--port", str(self._port)]
        self._process = subprocess.Popen([*command, *chosen], cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout
        assert self._process.stdout.readline(), "the sink did not start"

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def as_sink(self) -> Sink:
        return Sink(self.url, self.ledger)


class Lab(Shop):
    """A shop with its own sink. Only its workers connect through the proxies."""

    def __init__(self, services: Services, sink: FaultySink, folder: Path, results: list[FaultResult]) -> None:
        self.direct = replace(services, smtp_url=sink.url, ledger=sink.ledger)
        super().__init__(self.direct, sink.as_sink(), folder)
        self.sink = sink
        self.random = random.Random(20_261)
        self._results = results
        self._recipients: dict[UUID, int] = {}  # the number of recipients that each sendout must have
        self._through: dict[str, str] = {}  # URLs of the proxies that workers use instead of the services

    # --- faults ---

    @contextmanager
    def proxy_to(self, service: str) -> Iterator[FaultProxy]:
        """Let workers started in the block reach `database`, `broker` or `smtp` through the yielded proxy."""
        name = f"{service}_url"
        with FaultProxy(getattr(self.direct, name)) as proxy:
            before, self._through = self._through, {**self._through, name: proxy.url}
            try:
                yield proxy
            finally:
                self._through = before

    @contextmanager
    def worker(self, *roles: str, ready: bool = True, **settings: object) -> Iterator[Worker]:
        with super().worker(*roles, ready=ready, **{**self._through, **settings}) as worker:
            yield worker

    @contextmanager
    def fleet(self, count: int, **settings: object) -> Iterator["Fleet"]:
        """Run `count` workers and yield their fleet. At the end, the running workers stop gracefully."""
        fleet = Fleet(self, {**QUICK_TAKEOVER, **settings})
        with fleet.running(count):
            yield fleet

    # --- steps of a fault test ---

    def add_message(self, recipients: int, lists: int = 3, *, spare: int = 0) -> str:
        """Add a message, a group and lists with a code for each recipient plus `spare` codes.

        Returns the name of the message and the group, with which the names of the lists begin.
        """
        name = f"fault-{len(self.rows('SELECT id FROM message')) + 1}"
        people = [f"{name}-{number}@example.org" for number in range(recipients)]
        codes = {
            f"{name}-{number}": codes_of(f"{name}{chr(97 + number)}", recipients + spare) for number in range(lists)
        }
        self.has(name, name, people, codes)
        return name

    def start_sendout(self, recipients: int, lists: int = 3, after: UUID | None = None) -> UUID:
        """Add a message with its group and lists, start its sendout and return the sendout's id."""
        name = self.add_message(recipients, lists)
        sendout = self.begin_sending(name, name, *(["--after", after] if after else []))
        self._recipients[sendout] = recipients
        return sendout

    def is_recorded(self, command: Command) -> bool:
        """Return whether a worker has accepted or rejected the command."""
        return bool(self.rows("SELECT FROM command WHERE id = $1", command.id))

    def mail_count(self) -> int:
        """The number of mails that the sink has accepted."""
        return self.sink.ledger.read_bytes().count(b"\n")

    def wait_finished(self, *sendouts: UUID, within: float = END_SECONDS) -> None:
        """Wait until each of these sendouts or imports is finished."""

        def states() -> list[str]:
            return [self.state(sendout) for sendout in sendouts]

        eventually(lambda: {*states()} <= {"finished"}, "all sendouts to finish", within=within, seen=states)

    def time_recovery(self, recovered: Callable[[], object] | None = None) -> float:
        """Wait until `recovered` is true, by default until mails arrive again; return the seconds.

        Call it at the end of the fault.
        """
        begun, before = time.monotonic(), self.mail_count()
        eventually(recovered or (lambda: self.mail_count() > before), "the workers to recover", within=RECOVERY_SECONDS)
        return time.monotonic() - begun

    def longest_gap(self) -> float:
        """The longest time between two mails, in seconds."""
        with self.sink.ledger.open(encoding="utf-8") as lines:
            times = [
                datetime.fromisoformat(json.loads(line)["at"]).timestamp() for line in lines if line.endswith("}\n")
            ]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def check(
        self,
        fault: str,
        *,
        rounds: int = 1,
        recovered: float | None = None,
        max_uncertain: int = 0,
        rejected: int = 0,
    ) -> Verdict:
        """Check the rules of the oracle and the limit of uncertain mails; add a row to the table.

        `rejected` is the number of commands that must be in the dead queue. If it is 0, the queue must be empty, so
        that no queue contains a code or an address.
        """
        verdict = asyncio.run(check_sendouts(self.direct.database_url, self.sink.ledger, recipients=self._recipients))
        row = FaultResult(
            fault,
            rounds,
            verdict.mails,
            verdict.lost,
            verdict.duplicates,
            verdict.two_codes,
            verdict.uncertain,
            recovered,
        )
        self._results.append(row)
        assert verdict.wrong == [], f"{fault}: {asdict(row)}"
        assert verdict.uncertain <= max_uncertain, f"{fault}: {asdict(row)}"
        self.check_privacy()  # O9
        dead = len(self.dead())  # contains a command twice if the acknowledgement of its rejection was lost
        assert dead >= rejected if rejected else dead == 0  # O9
        assert recovered is None or recovered <= RECOVERY_SECONDS
        return verdict


class Fleet:
    """Running workers in numbered places. Each can be killed and replaced by a new worker in the same place."""

    def __init__(self, lab: Lab, settings: dict[str, object]) -> None:
        self._lab = lab
        self._settings = settings
        self._stack = ExitStack()
        self.workers: list[Worker] = []
        self.killed = 0

    @contextmanager
    def running(self, count: int) -> Iterator[None]:
        with self._stack:
            self.workers = [self._start(ready=True) for _ in range(count)]
            yield
            for worker in self.workers:
                worker.says("consuming commands")  # before this log line, a worker cannot stop gracefully

    def _start(self, *, ready: bool = False, **settings: object) -> Worker:
        return self._stack.enter_context(self._lab.worker(ready=ready, **{**self._settings, **settings}))

    def replace(self, place: int, *, ready: bool = False, **settings: object) -> Worker:
        """Start a worker in this place, with these settings; the previous worker must be dead or dying."""
        self.workers[place] = self._start(ready=ready, **settings)
        return self.workers[place]

    def kill_random(self) -> None:
        """Kill -9 a random worker and replace it."""
        place = self._lab.random.randrange(len(self.workers))
        self.workers[place].kill()
        self.killed += 1
        self.replace(place)

    def kill_until(self, fact: Callable[[], object], pauses: tuple[float, float], within: float = END_SECONDS) -> None:
        """Kill random workers until `fact` holds; before each kill, pause for a random time in seconds (from, to)."""

        def holds() -> bool:
            if fact():
                return True
            time.sleep(self._lab.random.uniform(*pauses))
            self.kill_random()
            return False

        eventually(holds, "all work to finish", within=within, every=0, seen=lambda: f"{self.killed} kills")

    def signal(self, place: int, number: signal.Signals) -> None:
        os.kill(self.workers[place].pid, number)


def codes_of(list_name: str, count: int) -> Sequence[str]:
    """The codes of a list, such as `FAULTA-0000001`.

    The prefix is the list's name in capitals, with letters instead of digits and without hyphens.
    """
    prefix = "".join(
        each for each in list_name.upper().translate(str.maketrans("0123456789", "QRSTUVWXYZ")) if each.isalpha()
    )
    return [f"{prefix}-{number:07}" for number in range(count)]
