"""A shop in the middle of a sendout and an import: something for a fault to hit."""

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
"""To the relay, of each worker; each has one mail at most whose final dot waits for its answer."""
SINK_SECONDS = 0.1
"""The sink answers so late, that a sendout is long enough to be hit."""
QUICK_RELAY: dict[str, Any] = {"smtp_backoff_seconds": 0.1, "smtp_max_backoff_seconds": 0.5}
BEGUN = 40
"""Mails that have come when a fault begins."""


@dataclass(slots=True)
class Busy:
    lab: Lab
    fleet: Fleet
    sendout: UUID
    list_name: str
    total: int
    """Codes that the list will have."""
    imports: list[UUID] = field(default_factory=list)

    def imports_codes(self, count: int) -> None:
        """Begin an import of so many new ones."""
        self.imports.append(begin_import(self.lab, self.list_name, f"{self.list_name}new{self.total}", count))
        self.total += count

    def states(self) -> list[str]:
        """The states of the sendout and the imports."""
        return [self.lab.state(job) for job in (self.sendout, *self.imports)]

    @property
    def is_done(self) -> bool:
        return {*self.states()} == {"finished"}

    def at_work_again(self) -> float:
        """Seconds until mails leave again, or there is nothing left to do."""
        before = self.lab.mailed()
        return self.lab.recovers(lambda: self.lab.mailed() > before or self.is_done)

    def ends(self) -> None:
        """All of it, and every code of the files is in the list once."""
        eventually(
            lambda: hurried(self.lab) and self.is_done, "all jobs to finish", within=END_SECONDS, seen=self.states
        )
        assert self.lab.list_named(self.list_name).total == self.total


@contextmanager
def busy(
    lab: Lab, *, workers: int = WORKERS, recipients: int = RECIPIENTS, codes: int = CODES, **settings: object
) -> Iterator[Busy]:
    """So many workers send to so many people and import so many codes."""
    lab.sink.kill()
    lab.sink.start(delay=SINK_SECONDS)
    name = lab.stocked(recipients)
    patience: dict[str, Any] = {
        "max_in_flight": MAX_IN_FLIGHT,
        "smtp_connections": CONNECTIONS,
        "import_folder": lab.file("x", "").parent,
    }
    with lab.fleet(workers, **{**patience, **settings}) as fleet:
        work = Busy(lab, fleet, lab.begin_sending(name, name), f"{name}-0", recipients)
        lab.mails_come(BEGUN)
        work.imports_codes(codes)
        yield work


def hurried(lab: Lab) -> bool:
    """Deferred mails, and batches that came back, are due now, and not in a minute."""
    lab.rows("UPDATE delivery SET due_at = now() WHERE state = 'deferred' AND due_at > now()")
    lab.rows("UPDATE delivery_batch SET due_at = now() WHERE NOT closed AND due_at > now()")
    return True


def begin_import(lab: Lab, list_name: str, prefix: str, count: int) -> UUID:
    """Of new codes, from a file beside the others of the lab."""
    file = lab.file(f"{prefix}.txt", "".join(f"{code}\n" for code in codes_of(prefix, count)))
    command = ImportCoupons(list=list_name, source=file.as_uri())
    lab.publish(command)
    return command.id
