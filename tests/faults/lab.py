"""A shop under faults: its services behind proxies, its workers to be killed, an oracle that judges what came of it."""

import asyncio
import json
import os
import random
import re
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

from sandbox.process import free_ports
from sandbox.services import Services, Sink
from tests.acceptance.processes import Worker
from tests.acceptance.system import Shop
from tests.faults.oracle import Verdict, judge
from tests.faults.proxy import FaultProxy
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
LONG = os.environ.get("COUPONS_FAULTS") == "long"
RECOVERY_SECONDS = 60
"""After a fault has ended, everybody is at work again within, without a person."""
END_SECONDS = 1_800 if LONG else 60
IMPATIENT: dict[str, Any] = {"lease_seconds": 3, "heartbeat_seconds": 0.5, "sweep_seconds": 1}
"""Settings of workers whose work is taken over soon."""
SECRETS = re.compile(r"@example\.|\b[A-Z]+-\d{5,9}\b")
"""What no log may hold: all addresses and codes of these tests look so."""


def size(*, short: int, long: int) -> int:
    """How much of something: in `make test`, and in `make faults`."""
    return long if LONG else short


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    fault: str
    rounds: int
    mails: int
    lost: int
    twice: int
    two_codes: int
    uncertain: int
    recovered_seconds: float | None


class FaultySink:
    """`python -m tests.faults.sink`: it can be killed, and started again on the same port with the same ledger."""

    def __init__(self, ledger: Path, **options: object) -> None:
        self.ledger = ledger
        (self._port,) = free_ports(1)
        self.url = f"smtp://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start(**options)

    def start(self, **options: object) -> None:
        """Anew, with these options: `odds` as JSON, `seed`, `delay`."""
        if self.ledger.exists() and self.ledger.read_bytes()[-1:] not in (b"", b"\n"):
            with self.ledger.open("ab") as torn:  # it was killed in the middle of a line
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
    """A shop with its sink; what it does itself goes past the proxies, only its workers go through them."""

    def __init__(self, services: Services, sink: FaultySink, folder: Path, table: list[Row]) -> None:
        self.direct = replace(services, smtp_url=sink.url, ledger=sink.ledger)
        super().__init__(self.direct, sink.as_sink(), folder)
        self.sink = sink
        self.random = random.Random(20_261)
        self._table = table
        self._recipients: dict[UUID, int] = {}  # how many people each sendout must have
        self._through: dict[str, str] = {}  # addresses of proxies that workers get instead of the services'

    # --- faults ---

    @contextmanager
    def proxied(self, service: str) -> Iterator[FaultProxy]:
        """From here on workers that are started reach `database`, `broker` or `smtp` through a proxy."""
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
        """So many workers that are replaced when they die. At the end those that live stop well."""
        fleet = Fleet(self, {**IMPATIENT, **settings})
        with fleet.running(count):
            yield fleet

    # --- what a fault test is made of ---

    def stocked(self, recipients: int, lists: int = 3, *, spare: int = 0) -> str:
        """A message to so many people, with a code of each of so many lists for everybody; returns its name."""
        name = f"fault-{len(self.rows('SELECT id FROM message')) + 1}"
        people = [f"{name}-{number}@example.org" for number in range(recipients)]
        codes = {
            f"{name}-{number}": codes_of(f"{name}{chr(97 + number)}", recipients + spare) for number in range(lists)
        }
        self.has(name, name, people, codes)
        return name

    def sending(self, recipients: int, lists: int = 3) -> UUID:
        """Such a sendout, begun."""
        name = self.stocked(recipients, lists)
        sendout = self.begin_sending(name, name)
        self._recipients[sendout] = recipients
        return sendout

    def mailed(self) -> int:
        """How many mails the sink has accepted."""
        return self.sink.ledger.read_bytes().count(b"\n")

    def ends(self, *sendouts: UUID, within: float = END_SECONDS) -> None:
        """Wait until each is finished."""

        def states() -> list[str]:
            return [self.state(sendout) for sendout in sendouts]

        eventually(lambda: {*states()} <= {"finished"}, "all sendouts to finish", within=within, seen=states)

    def recovers(self, at_work: Callable[[], object] | None = None) -> float:
        """Seconds from now, when a fault has just ended, until mails leave again, or until this is so."""
        begun, before = time.monotonic(), self.mailed()
        fact = at_work or (lambda: self.mailed() > before)
        eventually(fact, "the workers to recover", within=RECOVERY_SECONDS)
        return time.monotonic() - begun

    def longest_silence(self) -> float:
        """Seconds between two mails, at most: how long everybody was at a loss."""
        with self.sink.ledger.open(encoding="utf-8") as lines:
            times = [
                datetime.fromisoformat(json.loads(line)["at"]).timestamp() for line in lines if line.endswith("}\n")
            ]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def judged(
        self,
        fault: str,
        *,
        rounds: int = 1,
        recovered: float | None = None,
        most_uncertain: int = 0,
        rejected: int = 0,
    ) -> Verdict:
        """Ask the oracle; nothing may be wrong, and no more uncertain than that. The table gets a line.

        Commands of these tests name their sources, so that no queue holds codes or addresses; `rejected` is how many
        others were published and must be in the dead queue.
        """
        verdict = asyncio.run(judge(self.direct.database_url, self.sink.ledger, recipients=self._recipients))
        row = Row(
            fault, rounds, verdict.mails, verdict.lost, verdict.twice, verdict.two_codes, verdict.uncertain, recovered
        )
        self._table.append(row)
        assert verdict.wrong == [], f"{fault}: {asdict(row)}"
        assert verdict.uncertain <= most_uncertain, f"{fault}: {asdict(row)}"
        assert self.secrets_in_logs() == []  # O9
        dead = len(self.dead())  # a rejection whose acknowledgement is lost is there again
        assert dead >= rejected if rejected else dead == 0  # O9
        assert recovered is None or recovered <= RECOVERY_SECONDS
        return verdict

    def secrets_in_logs(self) -> list[str]:
        return [f"{log.name}: {found[0]}" for log in self.worker_logs if (found := SECRETS.search(log.read_text()))]


class Fleet:
    """Workers by their places, 0 to n-1: whoever dies is replaced at once."""

    def __init__(self, lab: Lab, settings: dict[str, object]) -> None:
        self._lab = lab
        self._settings = settings
        self._stack = ExitStack()
        self.workers: list[Worker] = []
        self.killed = 0

    @contextmanager
    def running(self, count: int) -> Iterator[None]:
        with self._stack:
            self.workers = [self._started(ready=True) for _ in range(count)]
            yield
            for worker in self.workers:
                worker.says("taking commands")  # one that is asked to end before that has nothing to end well

    def _started(self, *, ready: bool = False, **settings: object) -> Worker:
        return self._stack.enter_context(self._lab.worker(ready=ready, **{**self._settings, **settings}))

    def replace(self, place: int, *, ready: bool = False, **settings: object) -> Worker:
        """Start another one at this place, perhaps with other settings; the one before must be dead or dying."""
        self.workers[place] = self._started(ready=ready, **settings)
        return self.workers[place]

    def kill_one(self) -> None:
        """Kill -9 whom chance chooses, and replace it."""
        place = self._lab.random.randrange(len(self.workers))
        self.workers[place].kill()
        self.killed += 1
        self.replace(place)

    def kill_until(self, fact: Callable[[], object], pauses: tuple[float, float], within: float = END_SECONDS) -> None:
        """Kill one again and again, with a pause of so many seconds, from … to, until something is so."""

        def holds() -> bool:
            if fact():
                return True
            time.sleep(self._lab.random.uniform(*pauses))
            self.kill_one()
            return False

        eventually(holds, "all work to finish", within=within, every=0, seen=lambda: f"{self.killed} kills")

    def signal(self, place: int, number: signal.Signals) -> None:
        os.kill(self.workers[place].pid, number)


def codes_of(list_name: str, count: int) -> Sequence[str]:
    """`FAULTA-0000001` and so on, of a list's name without its digits and hyphens, which are in it as letters."""
    prefix = "".join(
        each for each in list_name.upper().translate(str.maketrans("0123456789", "QRSTUVWXYZ")) if each.isalpha()
    )
    return [f"{prefix}-{number:07}" for number in range(count)]
