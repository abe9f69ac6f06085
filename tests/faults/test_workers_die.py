"""Killing, suspending or stopping workers, at random times or at any failpoint, loses and duplicates no mail."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

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
"""Settings with small batches, so that the next worker always finds one."""
MAILS_IN_FLIGHT = ("deliver.handed_over", "deliver.intended", "deliver.settled", "deliver.recorded")
KILLED_IN_SHORT = (
    "intake.committed",
    "import.committed",
    "import.removing",
    "sendout.prepared",
    *MAILS_IN_FLIGHT,
    "sweep.recovered",
)
NOT_HERE = {"wait.dead_lettered", "schedule.created", "schedule.committed"}
"""The oracle allows no rejected command, so acceptance/test_order.py kills workers at the first of these failpoints.
The lab has no recurring imports: acceptance/test_import_schedules.py kills workers at the others."""
TERMINATED_IN_SHORT = ("intake.committed", "import.staged", "deliver.assigned", *MAILS_IN_FLIGHT)


def test_random_kills_are_harmless(lab: Lab) -> None:
    """No mail is lost or duplicated if random workers are killed; only mails in flight may become uncertain."""
    lab.sink.kill()
    lab.sink.start(delay=size(short=30, long=80) / 1_000)  # so that the sendout lasts for several kills
    min_kills = size(short=3, long=500)
    with lab.fleet(size(short=3, long=4), max_in_flight=MAX_IN_FLIGHT) as fleet:
        recipients = size(short=400, long=200_000)
        while recipients:
            sendout = lab.start_sendout(recipients)
            fleet.kill_until(lambda: lab.state(sendout) == "finished", (0.5, size(short=1, long=3)))  # noqa: B023 - called in this iteration
            recipients = 0 if fleet.killed >= min_kills else max(size(short=100, long=500), recipients // 10)
    lab.check(
        "kill -9 of a random worker",
        rounds=fleet.killed,
        recovered=lab.longest_gap(),
        max_uncertain=fleet.killed * MAX_IN_FLIGHT,
    )


def test_a_kill_at_every_failpoint_is_harmless(lab: Lab) -> None:
    """No mail is lost or duplicated if workers are killed at every failpoint, and the import is complete."""
    passed = at_each_failpoint(lab, lambda place: kill_at(lab, place), only=None if LONG else KILLED_IN_SHORT)
    assert {*passed} == ({*FAILPOINTS} - NOT_HERE if LONG else {*KILLED_IN_SHORT})
    recovered = finish(lab)
    deaths = 1 + sum(place in MAILS_IN_FLIGHT for place in passed)
    lab.check(
        "kill -9 at every failpoint", rounds=len(passed), recovered=recovered, max_uncertain=deaths * MAX_IN_FLIGHT
    )


def test_sigterm_at_every_failpoint_leaves_nothing_uncertain(lab: Lab) -> None:
    """A worker that gets SIGTERM at a failpoint exits without leaving uncertain mails, and other workers continue.

    In the long form, one worker is killed so that a sweep has work. Only its mails become uncertain.
    """
    passed = at_each_failpoint(lab, lambda place: terminate_at(lab, place), only=None if LONG else TERMINATED_IN_SHORT)
    recovered = finish(lab)
    lab.check(
        "SIGTERM at every failpoint",
        rounds=len(passed),
        recovered=recovered,
        max_uncertain=MAX_IN_FLIGHT if LONG else 0,
    )


@pytest.mark.parametrize("place", ["deliver.claimed", *MAILS_IN_FLIGHT] if LONG else ["deliver.settled"])
def test_a_worker_that_sleeps_beyond_its_lease_does_no_harm(lab: Lab, place: str) -> None:
    """Other workers take over from a suspended worker. When that worker continues, it sends and records nothing."""
    rounds = size(short=1, long=2)
    for _ in range(rounds):
        with stopped_at(lab, place) as suspended:
            sendout = lab.start_sendout(size(short=60, long=1_000), lists=1)
            wait_until_stopped(suspended, place)
            with lab.worker(**SMALL):
                lab.wait_finished(sendout)
                os.kill(suspended.pid, signal.SIGCONT)
                suspended.says("lease lost")
    lab.check(
        f"SIGSTOP beyond the lease, at {place}",
        rounds=rounds,
        max_uncertain=0 if place == "deliver.claimed" else rounds * MAX_IN_FLIGHT,
    )


# --- failpoints ---


def at_each_failpoint(lab: Lab, do: Callable[[str], None], *, only: tuple[str, ...] | None = None) -> list[str]:
    """Call `do` with each failpoint (or each in `only`), with work that reaches it; return the failpoints in order.

    Leaves sendouts unfinished. Before the sweep, one worker is killed with mails in flight, so that the sweep has work.
    """
    passed = []

    def at(*places: str, work: Callable[[], object] = int) -> None:
        """Call `work` before each failpoint that may finish the work of the previous one."""
        for place in places:
            if only is None or place in only:
                work()
                do(place)
                passed.append(place)

    lab.coupons("list", "create", "replaced")
    lab.coupons("import", codes_file(lab, "old"), "--list", "replaced")
    at(*of("intake"), *of("import"), work=partial(replace_codes, lab))
    at(*of("sendout"), work=partial(lab.start_sendout, 40, lists=1))
    at(*of("wait", but="wait.dead_lettered"), work=partial(start_waiting_sendout, lab))
    lab.start_sendout(size(short=600, long=5_000), lists=2)
    at(*of("deliver", but="deliver.closed"))
    cancelled = lab.start_sendout(100, lists=1)
    while lab.state(cancelled) != "sending":  # the killed worker may have admitted another sendout
        kill_at(lab, "sendout.admitted")
    lab.coupons("cancel", cancelled)
    at("deliver.closed")
    if only is None or "sweep.recovered" in only:
        kill_at(lab, "deliver.settled")
    with pause_all(lab):
        at("sweep.recovered")
    return passed


def replace_codes(lab: Lab) -> None:
    lab.coupons("import", codes_file(lab, "new"), "--list", "replaced", "--mode", "replace")


def start_waiting_sendout(lab: Lab) -> None:
    """Start a sendout that waits for an import, and then the import."""
    import_id = uuid4()
    sendout = lab.start_sendout(40, lists=1, after=import_id)
    with lab.worker("sendout", **SMALL):
        waits = "SELECT FROM sendout_wait WHERE sendout_id = $1"
        eventually(lambda: lab.rows(waits, sendout), "the sendout to wait")
    lab.coupons("import", codes_file(lab, "new"), "--list", "replaced", "--mode", "replace", "--id", import_id)


@contextmanager
def pause_all(lab: Lab) -> Iterator[None]:
    paused = [row["id"] for row in lab.rows("SELECT id FROM sendout WHERE state = 'sending'")]
    for sendout in paused:
        lab.coupons("pause", sendout)
    yield
    for sendout in paused:
        lab.coupons("resume", sendout)


def of(role: str, *, but: str = "") -> Iterator[str]:
    return (place for place in FAILPOINTS if place.startswith(f"{role}.") and place != but)


def kill_at(lab: Lab, place: str) -> None:
    roles = ["sendout"] if place.startswith("sendout.") else []  # else the number of mails in flight would vary
    with lab.worker(*roles, ready=False, failpoints=f"{place}=kill", **SMALL) as worker:
        eventually(lambda: worker.is_dead, f"a worker to die at {place}")


def terminate_at(lab: Lab, place: str) -> None:
    """Send SIGTERM at a failpoint: the worker stops itself there, gets the signal and continues."""
    with stopped_at(lab, place) as worker:
        wait_until_stopped(worker, place)
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGCONT)
        eventually(lambda: worker.is_dead, f"a worker to exit after SIGTERM at {place}")


@contextmanager
def stopped_at(lab: Lab, place: str) -> Iterator[Worker]:
    with lab.worker(ready=False, failpoints=f"{place}=stop", **SMALL) as worker:
        try:
            yield worker
        finally:
            if not worker.is_dead:
                os.kill(worker.pid, signal.SIGCONT)


def wait_until_stopped(worker: Worker, place: str) -> None:
    stat = Path(f"/proc/{worker.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), f"a worker to stop at {place}")


def finish(lab: Lab) -> float:
    """Let an undisturbed worker finish all jobs, and check the import; return the seconds until all were finished."""
    with lab.worker(**QUICK_TAKEOVER):
        seconds = lab.time_recovery(lambda: not list_unfinished(lab))
    (replaced,) = (each for each in lab.rows("SELECT * FROM coupon_list WHERE name = 'replaced'"))
    assert (replaced["total"], replaced["available"]) == (60, 60)
    assert {row["code"] for row in lab.rows("SELECT code FROM coupon WHERE list_id = $1", replaced["id"])} == {
        *codes_of("new", 60)
    }
    return seconds


def list_unfinished(lab: Lab) -> list[UUID]:
    open_jobs = (
        "SELECT id FROM sendout WHERE finished_at IS NULL UNION SELECT id FROM import_job WHERE finished_at IS NULL"
    )
    return [row["id"] for row in lab.rows(open_jobs)]


def codes_file(lab: Lab, name: str) -> Path:
    return lab.file(f"{name}.txt", "\n".join(codes_of(name, 60)))
