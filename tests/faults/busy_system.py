"""A shop in the middle of a sendout and an import, for faults to hit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from coupons.commands import ImportCoupons
from tests.faults.lab import END_SECONDS, Fleet, Lab, codes_of, size
from tests.waiting import eventually

RECIPIENTS = size(short=200, long=1_500)
CODES = size(short=10_000, long=200_000)
WORKERS = 2
MAX_IN_FLIGHT = 40
CONNECTIONS = 4
"""Connections of each worker to the relay. On each connection, at most one mail waits for its final reply."""
SINK_DELAY_SECONDS = 0.1
"""The sink delays its replies, so that the sendout lasts long enough to be hit."""
QUICK_RELAY: dict[str, Any] = {"smtp_backoff_seconds": 0.1, "smtp_max_backoff_seconds": 0.5}
MAILS_BEFORE_FAULT = 40
"""A fault begins after this many mails."""


@dataclass(slots=True)
class BusySystem:
    """A lab with running workers, one sendout and some imports."""

    lab: Lab
    fleet: Fleet
    sendout: UUID
    list_name: str
    total: int
    """The number of codes that the list has after all imports."""
    imports: list[UUID] = field(default_factory=list)

    def start_import(self, count: int) -> None:
        """Start an import of new codes."""
        self.imports.append(start_import(self.lab, self.list_name, f"{self.list_name}new{self.total}", count))
        self.total += count

    def states(self) -> list[str]:
        """The states of the sendout and the imports."""
        return [self.lab.state(job) for job in (self.sendout, *self.imports)]

    @property
    def is_done(self) -> bool:
        return {*self.states()} == {"finished"}

    def time_recovery(self) -> float:
        """Seconds until mails arrive again or all jobs are finished."""
        before = self.lab.mail_count()
        return self.lab.time_recovery(lambda: self.lab.mail_count() > before or self.is_done)

    def wait_finished(self) -> None:
        """Wait until all jobs are finished; then every code of the files must be in the list once."""
        eventually(
            lambda: make_due(self.lab) and self.is_done, "all jobs to finish", within=END_SECONDS, seen=self.states
        )
        assert self.lab.get_list(self.list_name).total == self.total


@contextmanager
def busy_system(
    lab: Lab, *, workers: int = WORKERS, recipients: int = RECIPIENTS, codes: int = CODES, **settings: object
) -> Iterator[BusySystem]:
    """Run workers that mail a sendout and import codes."""
    lab.sink.kill()
    lab.sink.start(delay=SINK_DELAY_SECONDS)
    name = lab.add_message(recipients)
    defaults: dict[str, Any] = {
        "max_in_flight": MAX_IN_FLIGHT,
        "smtp_connections": CONNECTIONS,
        "import_folder": lab.file("x", "").parent,
    }
    with lab.fleet(workers, **{**defaults, **settings}) as fleet:
        work = BusySystem(lab, fleet, lab.begin_sending(name, name), f"{name}-0", recipients)
        lab.mails_come(MAILS_BEFORE_FAULT)
        work.start_import(codes)
        yield work


def make_due(lab: Lab) -> bool:
    """Make deferred mails and released batches due now instead of in a minute. Returns True, for use in a condition."""
    lab.rows("UPDATE delivery SET due_at = now() WHERE state = 'deferred' AND due_at > now()")
    lab.rows("UPDATE delivery_batch SET due_at = now() WHERE NOT closed AND due_at > now()")
    return True


def start_import(lab: Lab, list_name: str, prefix: str, count: int) -> UUID:
    """Start an import of new codes from a file in the lab's folder."""
    file = lab.file(f"{prefix}.txt", "".join(f"{code}\n" for code in codes_of(prefix, count)))
    command = ImportCoupons(list=list_name, source=file.as_uri(), confirmed=True)  # new codes have another shape
    lab.publish(command)
    return command.id
