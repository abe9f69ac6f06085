"""Networks that fall silent, forget connections, cut them anywhere, lose the one answer that matters, or are slow."""

import os
import signal
import subprocess
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.processes import Worker
from tests.faults.busy_system import (
    CONNECTIONS,
    MAX_IN_FLIGHT,
    QUICK_RELAY,
    WORKERS,
    BusySystem,
    busy_system,
    make_due,
    start_import,
)
from tests.faults.lab import END_SECONDS, LONG, Lab, size
from tests.faults.proxy import BOTH, TO_CLIENT, TO_SERVER, Direction, FaultProxy
from tests.waiting import eventually

HASTY: dict[str, Any] = {"lease_seconds": 4, "heartbeat_seconds": 0.5, "sweep_seconds": 2}
"""Work that lost its transaction is taken up again after the lease."""
PATIENT: dict[str, Any] = {"lease_seconds": 30, "heartbeat_seconds": 1}
"""Longer than any fault of these: then nobody may be uncertain."""
SERVICES = ("database", "broker", "smtp")
OCTETS = (1, 7, 30, 100, 300, 1_000, 3_000, 10_000)


# --- the reply to COMMIT -------------------------------------------------------------------------------------------

SENDING = {
    "intake.received": b"COMMIT",
    "sendout.claimed": b"COMMIT",
    "sendout.prepared": b"COMMIT",
    "deliver.claimed": b"COMMIT",
    "deliver.settled": b"",
}
"""Where a worker stands before it commits a command, a snapshot, an admission, a batch's codes and a flush.

And what its next request has in it: a flush is one statement without a COMMIT.
"""
IMPORTING = {"intake.received": b"COMMIT", "import.staged": b"COMMIT"}
"""And a chunk of an import."""


@dataclass(frozen=True, slots=True)
class Halting:
    """A worker that stops at each of some places in turn, and its way to the database."""

    worker: Worker
    proxy: FaultProxy
    places: "deque[bytes]"

    def loses_reply(self) -> bool:
        """If it stands at a place, it goes on, and never hears what became of what it does there; True after all."""
        if self.places and is_stopped(self.worker):
            self.proxy.lose_reply(self.places.popleft())
            os.kill(self.worker.pid, signal.SIGCONT)
        return not self.places


def test_reply_to_commit_is_lost(lab: Lab, tmp_path: Path) -> None:
    """Each kind of transaction is committed, its worker never hears of it: nothing lost or twice, nobody uncertain."""
    rounds = size(short=1, long=5)
    lost = sum(lose_each_reply(lab, tmp_path) for _ in range(rounds))
    assert lost == rounds * len([*SENDING, *IMPORTING])
    lab.check("the reply to COMMIT lost, once for each kind of transaction", rounds=lost)


def lose_each_reply(lab: Lab, folder: Path) -> int:
    """During a sendout and an import; how many were lost."""
    name = lab.add_message(120)
    with ExitStack() as stack:
        halting = [
            halting_at(lab, stack, SENDING, "sendout", "deliver"),
            halting_at(lab, stack, IMPORTING, "import", import_folder=folder),
        ]
        importing = start_import(lab, f"{name}-0", f"{name}new", 10_000)
        sendout = lab.begin_sending(name, name)
        eventually(
            lambda: sum(each.loses_reply() for each in halting) == len(halting), "all places", within=END_SECONDS
        )
        lab.wait_finished(sendout)
        eventually(lambda: lab.state(importing) == "finished", "the import", within=END_SECONDS)
        assert lab.list_named(f"{name}-0").total == 10_120
        return sum(each.proxy.replies_lost for each in halting)


def halting_at(lab: Lab, stack: ExitStack, places: dict[str, bytes], *roles: str, **settings: Any) -> Halting:
    proxy = stack.enter_context(lab.proxy_to("database"))
    settings = {**HASTY, "failpoints": " ".join(f"{place}=stop" for place in places), **settings}
    worker = stack.enter_context(lab.worker(*roles, **settings))
    return Halting(worker, proxy, deque(places.values()))


def is_stopped(worker: Worker) -> bool:
    state = subprocess.run(["ps", "-o", "state=", "-p", str(worker.pid)], check=True, capture_output=True)
    return state.stdout.startswith(b"T")


@pytest.mark.long
def test_replies_are_lost_at_random(lab: Lab) -> None:
    """Of one commit in ten and one request in a hundred: nothing is lost or done twice, and nobody is uncertain."""
    with lab.proxy_to("database") as proxy, busy_system(lab, **PATIENT) as work:
        proxy.lose_replies({b"COMMIT": 0.1, b"": 0.01})
        work.wait_finished()
        lost = proxy.replies_lost
        proxy.heal()
    assert lost
    lab.check("replies of the database lost at random", rounds=lost)


# --- silence -------------------------------------------------------------------------------------------------------

ALL_AT_ONCE = (SERVICES, BOTH)
ONE_BY_ONE = [((service,), directions) for service in SERVICES for directions in (BOTH, (TO_SERVER,), (TO_CLIENT,))]


def name_of(value: tuple[str, ...]) -> str:
    return " and ".join(value)


@pytest.mark.parametrize(("silent", "directions"), [ALL_AT_ONCE, *(ONE_BY_ONE if LONG else [])], ids=name_of)
def test_black_hole(lab: Lab, silent: tuple[str, ...], directions: tuple[Direction, ...]) -> None:
    """Nothing passes for a while, and nobody is told: within a minute of its end all are at work, nobody uncertain."""
    seconds = size(short=3, long=12)
    with ExitStack() as stack:
        proxies = [stack.enter_context(lab.proxy_to(service)) for service in silent]
        work = stack.enter_context(busy_system(lab, **PATIENT))
        for proxy in proxies:
            proxy.stall(*directions)
        meanwhile = lab.start_sendout(10)
        time.sleep(seconds)
        for proxy in proxies:
            proxy.heal()
        recovered = max(time_recovery_of(work, service, meanwhile) for service in silent)
        work.wait_finished()
        lab.wait_finished(meanwhile)
    fault = f"black hole of {seconds} s before {name_of(silent)}, {name_of(directions)}"
    lab.check(fault, recovered=recovered)


def time_recovery_of(work: BusySystem, service: str, meanwhile: UUID) -> float:
    """Seconds until mails leave again, or, as they always do without a broker, until commands are taken again."""
    return work.lab.time_recovery(lambda: work.lab.state(meanwhile)) if service == "broker" else work.time_recovery()


# --- connections that end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES if LONG else ["smtp"])
def test_connections_are_cut(lab: Lab, service: str) -> None:
    """Anywhere in a request or an answer: all goes on with new connections, and only the relay's can be uncertain."""
    rounds, recovered = size(short=3, long=40), 0.0
    with lab.proxy_to(service) as proxy, busy_system(lab, **PATIENT, **QUICK_RELAY) as work:
        for number in range(rounds):
            proxy.cut_after(lab.random.choice(OCTETS), BOTH[number % 2])
            meanwhile = lab.start_sendout(5, 1) if service == "broker" else None
            recovered = max(recovered, time_recovery_of(work, service, meanwhile or work.sendout))
        proxy.cut()
        work.wait_finished()
    most = (rounds + 1) * WORKERS * CONNECTIONS if service == "smtp" else 0
    assert proxy.cuts >= rounds / 2  # a connection may have ended before so many bytes
    lab.check(f"connections to {service} cut anywhere", rounds=proxy.cuts, recovered=recovered, max_uncertain=most)


@pytest.mark.long
def test_network_is_slow(lab: Lab) -> None:
    """A tenth of a second each way, to everybody: it takes longer, and that is all."""
    with (
        lab.proxy_to("database") as database,
        lab.proxy_to("broker") as broker,
        lab.proxy_to("smtp") as smtp,
        busy_system(lab, **PATIENT) as work,
    ):
        for proxy in (database, broker, smtp):
            proxy.delay(0.1)
        work.wait_finished()
    lab.check("0.1 s of delay, each way, to every service")


@pytest.mark.long
@pytest.mark.parametrize("service", ["database", "broker"])
def test_half_open(lab: Lab, service: str) -> None:
    """No connection that there is ever hears anything again, new ones pass: at work within a minute, by themselves."""
    with lab.proxy_to(service) as proxy, busy_system(lab, workers=1, recipients=900, **HASTY) as work:
        proxy.forget()
        meanwhile = lab.start_sendout(10)
        recovered = time_recovery_of(work, service, meanwhile)
        work.wait_finished()
        lab.wait_finished(meanwhile)
    held = {"database": MAX_IN_FLIGHT, "broker": 0}
    lab.check(f"half-open connections to {service}", recovered=recovered, max_uncertain=held[service])


@pytest.mark.long
def test_half_open_relay(lab: Lab) -> None:
    """Its answers may come for ten minutes yet. Within one, all mails are sent but the two that each connection holds,
    although they are of as many batches as the worker delivers at a time; these have an outcome when there is one.
    """
    recipients, meanwhile_recipients = 400, 10
    lease = {"lease_seconds": 45, "heartbeat_seconds": 10}  # longer than mails wait for the first new connection
    with (
        lab.proxy_to("smtp") as proxy,
        busy_system(lab, workers=1, recipients=recipients, batch_size=30, **lease, **QUICK_RELAY) as work,
    ):
        proxy.forget()
        meanwhile = lab.start_sendout(meanwhile_recipients)
        others = recipients + meanwhile_recipients - 2 * CONNECTIONS
        recovered = lab.time_recovery(lambda: make_due(lab) and called_sent(lab) >= others)
        assert lab.state(work.sendout) == "sending"
        proxy.cut()
        work.wait_finished()
        lab.wait_finished(meanwhile)
    lab.check("half-open connections to smtp", recovered=recovered, max_uncertain=CONNECTIONS)


def called_sent(lab: Lab) -> int:
    return int(lab.rows("SELECT count(*) FROM delivery WHERE state = 'sent'")[0]["count"])
