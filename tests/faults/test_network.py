"""Workers recover from networks that go silent, drop or reset connections, lose a reply, or are slow."""

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

SHORT_LEASE: dict[str, Any] = {"lease_seconds": 4, "heartbeat_seconds": 0.5, "sweep_seconds": 2}
"""After a lost reply, work is claimed again when the lease expires."""
LONG_LEASE: dict[str, Any] = {"lease_seconds": 30, "heartbeat_seconds": 1}
"""Longer than any of these faults, so that no mail may become uncertain."""
SERVICES = ("database", "broker", "smtp")
MAILS_PER_ROUND = 40
"""If this many mails arrive in a round without a reset, the next round begins."""
OCTETS = (1, 7, 30, 100, 300, 1_000, 3_000, 10_000)


# --- the reply to COMMIT -------------------------------------------------------------------------------------------

SENDING = {
    "intake.received": b"COMMIT",
    "sendout.claimed": b"COMMIT",
    "sendout.prepared": b"COMMIT",
    "deliver.claimed": b"COMMIT",
    "deliver.settled": b"",
}
"""Failpoints before the commits of a command, a snapshot, an admission (which reserves codes), a batch's codes and a
flush. The request after the failpoint contains the value; a flush is one statement without a COMMIT.
"""
IMPORTING = {"intake.received": b"COMMIT", "import.staged": b"COMMIT"}
"""Failpoints before the commit of a command and of a chunk of an import."""


@dataclass(frozen=True, slots=True)
class HaltingWorker:
    """A worker that stops at each of its failpoints in turn, its proxy to the database, and the remaining requests."""

    worker: Worker
    proxy: FaultProxy
    requests: "deque[bytes]"

    def loses_reply(self) -> bool:
        """If the worker is stopped, resume it and drop the reply to its next request; return True after the last."""
        if self.requests and is_stopped(self.worker):
            self.proxy.lose_reply(self.requests.popleft())
            os.kill(self.worker.pid, signal.SIGCONT)
        return not self.requests


def test_a_lost_reply_to_commit_is_harmless(lab: Lab, tmp_path: Path) -> None:
    """No mail is lost, duplicated or uncertain if the reply to the COMMIT of any kind of transaction is lost."""
    rounds = size(short=1, long=5)
    lost = sum(lose_replies_to_commits(lab, tmp_path) for _ in range(rounds))
    assert lost == rounds * len([*SENDING, *IMPORTING])
    lab.check("reply to COMMIT lost, once per kind of transaction", rounds=lost)


def lose_replies_to_commits(lab: Lab, folder: Path) -> int:
    """Lose one reply per failpoint during a sendout and an import; return their number."""
    name = lab.add_message(120)
    with ExitStack() as stack:
        halting = [
            start_halting(lab, stack, SENDING, "sendout", "deliver"),
            start_halting(lab, stack, IMPORTING, "import", import_folder=folder),
        ]
        importing = start_import(lab, f"{name}-0", f"{name}new", 10_000)
        sendout = lab.begin_sending(name, name)
        eventually(
            lambda: sum(each.loses_reply() for each in halting) == len(halting),
            "a stop at each failpoint",
            within=END_SECONDS,
        )
        lab.wait_finished(sendout)
        eventually(lambda: lab.state(importing) == "finished", "the import to finish", within=END_SECONDS)
        assert lab.get_list(f"{name}-0").total == 10_120
        return sum(each.proxy.replies_lost for each in halting)


def start_halting(lab: Lab, stack: ExitStack, places: dict[str, bytes], *roles: str, **settings: Any) -> HaltingWorker:
    proxy = stack.enter_context(lab.proxy_to("database"))
    settings = {**SHORT_LEASE, "failpoints": " ".join(f"{place}=stop" for place in places), **settings}
    worker = stack.enter_context(lab.worker(*roles, **settings))
    return HaltingWorker(worker, proxy, deque(places.values()))


def is_stopped(worker: Worker) -> bool:
    state = subprocess.run(["ps", "-o", "state=", "-p", str(worker.pid)], check=True, capture_output=True)
    return state.stdout.startswith(b"T")


@pytest.mark.long
def test_replies_lost_at_random_are_harmless(lab: Lab) -> None:
    """No mail is lost, duplicated or uncertain if the replies to 10 % of commits and 1 % of all requests are lost."""
    with lab.proxy_to("database") as proxy, busy_system(lab, **LONG_LEASE) as work:
        proxy.lose_replies({b"COMMIT": 0.1, b"": 0.01})
        work.wait_finished()
        lost = proxy.replies_lost
        proxy.heal()
    assert lost
    lab.check("database replies lost at random", rounds=lost)


# --- silence -------------------------------------------------------------------------------------------------------

ALL_AT_ONCE = (SERVICES, BOTH)
ONE_BY_ONE = [((service,), directions) for service in SERVICES for directions in (BOTH, (TO_SERVER,), (TO_CLIENT,))]


def name_of(value: tuple[str, ...]) -> str:
    return " and ".join(value)


@pytest.mark.parametrize(("silent", "directions"), [ALL_AT_ONCE, *(ONE_BY_ONE if LONG else [])], ids=name_of)
def test_workers_recover_from_a_black_hole(
    lab: Lab, silent: tuple[str, ...], directions: tuple[Direction, ...]
) -> None:
    """Workers recover within a minute after all packets were silently lost for a while, and no mail is uncertain."""
    seconds = size(short=3, long=12)
    with ExitStack() as stack:
        proxies = [stack.enter_context(lab.proxy_to(service)) for service in silent]
        work = stack.enter_context(busy_system(lab, **LONG_LEASE))
        for proxy in proxies:
            proxy.stall(*directions)
        other = lab.start_sendout(10)
        time.sleep(seconds)
        for proxy in proxies:
            proxy.heal()
        recovered = max(time_recovery_of(work, service, other) for service in silent)
        work.wait_finished()
        lab.wait_finished(other)
    fault = f"black hole of {seconds} s: {name_of(silent)}, {name_of(directions)}"
    lab.check(fault, recovered=recovered)


def time_recovery_of(work: BusySystem, service: str, other: UUID) -> float:
    """Seconds until mails arrive again. For the broker, without which mails arrive, until a new command is consumed."""
    return work.lab.time_recovery(lambda: work.lab.state(other)) if service == "broker" else work.time_recovery()


# --- connections that end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES if LONG else ["smtp"])
def test_workers_recover_from_connection_resets(lab: Lab, service: str) -> None:
    """Work continues on new connections after resets at any byte; only resets to the relay leave uncertain mails."""
    rounds, recovered = size(short=3, long=40), 0.0
    with lab.proxy_to(service) as proxy, busy_system(lab, **LONG_LEASE, **QUICK_RELAY) as work:
        for number in range(rounds):
            mails, cuts = lab.mail_count(), proxy.cuts
            proxy.cut_after(lab.random.choice(OCTETS), BOTH[number % 2])
            eventually(
                lambda: proxy.cuts > cuts or lab.mail_count() >= mails + MAILS_PER_ROUND or work.is_done,  # noqa: B023 - called at once
                "a connection reset",
            )
            other = lab.start_sendout(5, 1) if service == "broker" else None
            recovered = max(recovered, time_recovery_of(work, service, other or work.sendout))
        proxy.cut()
        work.wait_finished()
    most = (rounds + 1) * WORKERS * CONNECTIONS if service == "smtp" else 0
    assert proxy.cuts >= rounds / 2  # a connection may end before the byte at which it would be reset
    lab.check(f"connections to {service} reset at any byte", rounds=proxy.cuts, recovered=recovered, max_uncertain=most)


@pytest.mark.long
def test_a_slow_network_only_takes_longer(lab: Lab) -> None:
    """All work finishes with a latency of 0.1 s in each direction to every service."""
    with (
        lab.proxy_to("database") as database,
        lab.proxy_to("broker") as broker,
        lab.proxy_to("smtp") as smtp,
        busy_system(lab, **LONG_LEASE) as work,
    ):
        for proxy in (database, broker, smtp):
            proxy.delay(0.1)
        work.wait_finished()
    lab.check("0.1 s of latency each way to every service")


@pytest.mark.long
@pytest.mark.parametrize("service", ["database", "broker"])
def test_workers_recover_from_half_open_connections(lab: Lab, service: str) -> None:
    """If all open connections to a service go silent, workers reconnect automatically within a minute."""
    with lab.proxy_to(service) as proxy, busy_system(lab, workers=1, recipients=900, **SHORT_LEASE) as work:
        proxy.forget()
        other = lab.start_sendout(10)
        recovered = time_recovery_of(work, service, other)
        work.wait_finished()
        lab.wait_finished(other)
    held = {"database": MAX_IN_FLIGHT, "broker": 0}
    lab.check(f"half-open connections to {service}", recovered=recovered, max_uncertain=held[service])


@pytest.mark.long
def test_half_open_relay_connections_hold_back_only_their_mails(lab: Lab) -> None:
    """Within a minute, all mails are sent except the two on each stalled connection to the relay.

    Those mails get an outcome when the connection ends, up to ten minutes later. This holds even if they belong to as
    many batches as the worker delivers concurrently.
    """
    recipients, other_recipients = 400, 10
    lease = {"lease_seconds": 45, "heartbeat_seconds": 10}  # longer than mails wait for the first new connection
    with (
        lab.proxy_to("smtp") as proxy,
        busy_system(lab, workers=1, recipients=recipients, batch_size=30, **lease, **QUICK_RELAY) as work,
    ):
        proxy.forget()
        other = lab.start_sendout(other_recipients)
        not_held = recipients + other_recipients - 2 * CONNECTIONS
        recovered = lab.time_recovery(lambda: make_due(lab) and count_sent(lab) >= not_held)
        assert lab.state(work.sendout) == "sending"
        proxy.cut()
        work.wait_finished()
        lab.wait_finished(other)
    lab.check("half-open connections to smtp", recovered=recovered, max_uncertain=CONNECTIONS)


def count_sent(lab: Lab) -> int:
    return int(lab.rows("SELECT count(*) FROM delivery WHERE state = 'sent'")[0]["count"])
