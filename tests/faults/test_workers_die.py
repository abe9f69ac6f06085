"""Workers that are killed, stopped and asked to end, at any moment and at every place in the code."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from coupons.failpoints import FAILPOINTS
from tests.acceptance.processes import Worker
from tests.faults.lab import LONG, QUICK_TAKEOVER, Lab, codes_of, size
from tests.waiting import eventually

MAX_IN_FLIGHT = 40
SMALL: dict[str, Any] = {
    **QUICK_TAKEOVER,
    "lease_seconds": 1.5,
    "batch_size": 20,
    "max_in_flight": MAX_IN_FLIGHT,
    "smtp_connections": 2,
}
"""Many batches, so that there is always one more for whoever comes next."""
MAILS_IN_FLIGHT = ("deliver.handed_over", "deliver.intended", "deliver.settled", "deliver.recorded")
DIE_IN_SHORT = (
    "intake.committed",
    "import.committed",
    "import.removing",
    "sendout.prepared",
    *MAILS_IN_FLIGHT,
    "sweep.recovered",
)
ASKED_IN_SHORT = ("intake.committed", "import.staged", "deliver.assigned", *MAILS_IN_FLIGHT)


def test_random_kills(lab: Lab) -> None:
    """Kill -9 of a random worker again and again: nobody twice, nobody lost, uncertain ≤ kills times the window."""
    lab.sink.kill()
    lab.sink.start(delay=size(short=30, long=80) / 1_000)  # so that there is something to kill
    least = size(short=3, long=500)
    with lab.fleet(size(short=3, long=4), max_in_flight=MAX_IN_FLIGHT) as fleet:
        recipients = size(short=400, long=200_000)
        while recipients:
            sendout = lab.start_sendout(recipients)
            fleet.kill_until(lambda: lab.state(sendout) == "finished", (0.5, size(short=1, long=3)))  # noqa: B023 - called in this turn
            recipients = 0 if fleet.killed >= least else max(size(short=100, long=500), recipients // 10)
    lab.check(
        "kill -9 of a random worker",
        rounds=fleet.killed,
        recovered=lab.longest_gap(),
        max_uncertain=fleet.killed * MAX_IN_FLIGHT,
    )


def test_a_kill_at_every_failpoint(lab: Lab) -> None:
    """At each place where something is done and the next thing is not: as above, and the import is whole."""
    passed = everywhere(lab, lambda place: dies(lab, place), only=None if LONG else DIE_IN_SHORT)
    assert {*passed} == {*(FAILPOINTS if LONG else DIE_IN_SHORT)}
    recovered = finishes(lab)
    deaths = 1 + sum(place in MAILS_IN_FLIGHT for place in passed)
    lab.check(
        "kill -9 at every failpoint", rounds=len(passed), recovered=recovered, max_uncertain=deaths * MAX_IN_FLIGHT
    )


def test_sigterm_in_each_phase(lab: Lab) -> None:
    """A worker that is asked to end at such a place ends well and leaves nothing uncertain; others go on.

    In the long form one dies, so that a sweep finds something: all that is uncertain is its.
    """
    asked = everywhere(lab, lambda place: is_asked_to_end(lab, place), only=None if LONG else ASKED_IN_SHORT)
    recovered = finishes(lab)
    lab.check(
        "SIGTERM in each phase", rounds=len(asked), recovered=recovered, max_uncertain=MAX_IN_FLIGHT if LONG else 0
    )


@pytest.mark.parametrize("place", ["deliver.claimed", *MAILS_IN_FLIGHT] if LONG else ["deliver.settled"])
def test_sigstop_past_the_lease(lab: Lab, place: str) -> None:
    """Others take over from a worker that stands still; when it goes on, it mails nobody and records nothing."""
    rounds = size(short=1, long=2)
    for _ in range(rounds):
        with stopped_at(lab, place) as still:
            sendout = lab.start_sendout(size(short=60, long=1_000), lists=1)
            waits_there(still, place)
            with lab.worker(**SMALL):
                lab.wait_finished(sendout)
                os.kill(still.pid, signal.SIGCONT)
                still.says("lease lost")
    lab.check(
        f"SIGSTOP past the lease, at {place}",
        rounds=rounds,
        max_uncertain=0 if place == "deliver.claimed" else rounds * MAX_IN_FLIGHT,
    )


# --- places ---


def everywhere(lab: Lab, do: Callable[[str], None], *, only: tuple[str, ...] | None = None) -> list[str]:
    """Work that passes every place; at each one, or `only` at these, `do`; returns them in their order.

    Sendouts are left unfinished. Before the sweep one worker dies with mails in hand: else there would be none to find.
    """
    passed = []

    def at(*places: str, work: Callable[[], object] = int) -> None:
        """Each with work of its own, as far as what is begun at one place may be ended there."""
        for place in places:
            if only is None or place in only:
                work()
                do(place)
                passed.append(place)

    lab.coupons("list", "create", "replaced")
    lab.coupons("import", codes_file(lab, "old"), "--list", "replaced")
    at(*of("intake"), *of("import"), work=partial(replaces, lab))
    at(*of("sendout"), work=partial(lab.start_sendout, 40, lists=1))
    lab.start_sendout(size(short=600, long=5_000), lists=2)
    at(*of("deliver", but="deliver.closed"))
    cancelled = lab.start_sendout(100, lists=1)
    while lab.state(cancelled) != "sending":  # it may have been another's admission
        dies(lab, "sendout.admitted")
    lab.coupons("cancel", cancelled)
    at("deliver.closed")
    if only is None or "sweep.recovered" in only:
        dies(lab, "deliver.settled")
    with all_paused(lab):
        at("sweep.recovered")
    return passed


def replaces(lab: Lab) -> None:
    lab.coupons("import", codes_file(lab, "new"), "--list", "replaced", "--mode", "replace")


@contextmanager
def all_paused(lab: Lab) -> Iterator[None]:
    paused = [row["id"] for row in lab.rows("SELECT id FROM sendout WHERE state = 'sending'")]
    for sendout in paused:
        lab.coupons("pause", sendout)
    yield
    for sendout in paused:
        lab.coupons("resume", sendout)


def of(role: str, *, but: str = "") -> Iterator[str]:
    return (place for place in FAILPOINTS if place.startswith(f"{role}.") and place != but)


def dies(lab: Lab, place: str) -> None:
    roles = ["sendout"] if place.startswith("sendout.") else []  # else others' mails would be in hand, or not
    with lab.worker(*roles, ready=False, failpoints=f"{place}=kill", **SMALL) as worker:
        eventually(lambda: worker.is_dead, f"a worker to die at {place}")


def is_asked_to_end(lab: Lab, place: str) -> None:
    """Exactly there: it stops itself, is asked, and goes on."""
    with stopped_at(lab, place) as worker:
        waits_there(worker, place)
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGCONT)
        eventually(lambda: worker.is_dead, f"a worker to end that was asked at {place}")


@contextmanager
def stopped_at(lab: Lab, place: str) -> Iterator[Worker]:
    with lab.worker(ready=False, failpoints=f"{place}=stop", **SMALL) as worker:
        try:
            yield worker
        finally:
            if not worker.is_dead:
                os.kill(worker.pid, signal.SIGCONT)


def waits_there(worker: Worker, place: str) -> None:
    stat = Path(f"/proc/{worker.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), f"a worker to come to {place}")


def finishes(lab: Lab) -> float:
    """Seconds until a worker to whom nothing happens has brought everything to its end."""
    with lab.worker(**QUICK_TAKEOVER):
        seconds = lab.time_recovery(lambda: not unfinished(lab))
    (replaced,) = (each for each in lab.rows("SELECT * FROM coupon_list WHERE name = 'replaced'"))
    assert (replaced["total"], replaced["available"]) == (60, 60)
    assert {row["code"] for row in lab.rows("SELECT code FROM coupon WHERE list_id = $1", replaced["id"])} == {
        *codes_of("new", 60)
    }
    return seconds


def unfinished(lab: Lab) -> list[UUID]:
    open_jobs = (
        "SELECT id FROM sendout WHERE finished_at IS NULL UNION SELECT id FROM import_job WHERE finished_at IS NULL"
    )
    return [row["id"] for row in lab.rows(open_jobs)]


def codes_file(lab: Lab, name: str) -> Path:
    return lab.file(f"{name}.txt", "\n".join(codes_of(name, 60)))
