"""Workers survive a database that dies or has a full disk.

They also survive a broker that drops connections, stops, loses its queues or has no memory.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from coupons import topology
from coupons.broker import connect
from coupons.migrate import migrate
from sandbox.rabbitmq import Broker, private_rabbitmq
from sandbox.services import Services
from tests.acceptance.processes import DONE, FAILED
from tests.faults import postgres
from tests.faults.busy_system import WORKERS, busy_system
from tests.faults.lab import END_SECONDS, FaultResult, FaultySink, Lab, size
from tests.faults.postgres import Postgres
from tests.services import QUEUES
from tests.waiting import eventually

LEASE_SECONDS = size(short=8, long=20)
"""A lease that is longer than a restart, so that no mail may become uncertain."""

REPORTED_SECONDS = 25
"""Limit until a publisher reports an error. It waits ten seconds for a confirm and ten for the connection to close."""


# --- the database --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabParts:
    """The parts of a lab except the database."""

    broker_url: str
    sink: FaultySink
    folder: Path
    results: list[FaultResult]

    @contextmanager
    def lab(self, *, small: bool) -> Iterator[tuple[Postgres, Lab]]:
        """Yield a database server of its own and a lab that uses it."""
        with postgres.private(self.folder, small=small) as server:
            asyncio.run(migrate(server.url))
            services = Services(server.url, self.broker_url, self.sink.url, self.sink.ledger)
            yield server, Lab(services, self.sink, self.folder, self.results)


@pytest.fixture
async def lab_parts(broker_url: str, faulty_sink: FaultySink, tmp_path: Path, results: list[FaultResult]) -> LabParts:
    await declare_queues(broker_url)
    return LabParts(broker_url, faulty_sink, tmp_path, results)


async def declare_queues(broker_url: str) -> None:
    async with connect(broker_url, "fault lab") as connection:
        await topology.declare(await connection.channel())


def test_a_database_crash_is_harmless(lab_parts: LabParts) -> None:
    """If PostgreSQL crashes repeatedly during a sendout and an import, no commit is lost and workers recover soon."""
    rounds, pause = size(short=1, long=6), size(short=2, long=20)
    recovered = 0.0
    with lab_parts.lab(small=False) as (server, lab):
        with busy_system(lab, recipients=size(short=200, long=12_000), lease_seconds=LEASE_SECONDS) as work:
            for _ in range(rounds):
                work.start_import(size(short=10_000, long=100_000))
                time.sleep(pause)
                server.die()
                server.start()
                recovered = max(recovered, work.time_recovery())
            work.wait_finished()
        lab.check("PostgreSQL killed (immediate shutdown)", rounds=rounds, recovered=recovered)


@pytest.mark.long
def test_a_full_disk_is_harmless(lab_parts: LabParts) -> None:
    """Work continues automatically when a full disk has space again, and no mail is lost or duplicated."""
    rounds = size(short=1, long=3)
    with lab_parts.lab(small=True) as (server, lab):
        recovered = max(fill_disk(server, lab) for _ in range(rounds))
        lab.check("PostgreSQL's disk full", rounds=rounds, recovered=recovered)


def fill_disk(server: Postgres, lab: Lab) -> float:
    """Fill the disk during a sendout and an import; return the seconds to recover."""
    with busy_system(lab, codes=10_000, lease_seconds=LEASE_SECONDS) as work:
        server.fill()
        work.start_import(size(short=20_000, long=100_000))
        eventually(lambda: server.is_full, "a failed write")
        time.sleep(size(short=0, long=10))
        server.make_room()
        recovered = work.time_recovery()
        work.wait_finished()
    return recovered


# --- the broker ----------------------------------------------------------------------------------------------------


@pytest.fixture
def controlled_broker(broker: Broker, tmp_path: Path) -> Iterator[Broker]:
    """A broker that the test can control: the session's broker, or a private one if only an address was given."""
    if broker.control:
        yield broker
    else:
        with private_rabbitmq(tmp_path, say=print) as private:
            yield private


@pytest.fixture
async def broker_lab(lab: Lab, broker: Broker, controlled_broker: Broker, lab_parts: LabParts) -> Lab:
    """A lab that uses the controlled broker."""
    if controlled_broker is broker:
        return lab
    await declare_queues(controlled_broker.url)
    return Lab(
        replace(lab.direct, broker_url=controlled_broker.url), lab_parts.sink, lab_parts.folder, lab_parts.results
    )


@pytest.mark.long
def test_closed_broker_connections_are_harmless(broker_lab: Lab, controlled_broker: Broker) -> None:
    """No command is lost or executed twice while the broker closes all connections every two seconds."""
    lab, rounds, recovered = broker_lab, size(short=2, long=30), 0.0
    with busy_system(lab) as work:
        others = []
        for _ in range(rounds):
            controlled_broker.rabbitmqctl("close_all_connections", "--global", "a test")
            began = time.monotonic()
            others.append(lab.start_sendout(5, lists=1))
            recovered = max(recovered, lab.time_recovery(partial(lab.state, others[-1])))
            time.sleep(max(0, began + 2 - time.monotonic()))
        work.wait_finished()
        lab.wait_finished(*others)
        assert all(worker.log.count("broker unavailable, retrying") > rounds / 2 for worker in work.fleet.workers)
    lab.check("broker closes all connections every 2 s", rounds=rounds, recovered=recovered)


@pytest.mark.long
def test_a_sendout_finishes_without_a_broker(broker_lab: Lab, controlled_broker: Broker) -> None:
    """While the broker is down, the sweep finishes the sendout; commands of before are consumed after the restart."""
    lab = broker_lab
    with busy_system(lab) as work:
        for worker in work.fleet.workers:
            worker.stop()
        before = lab.start_sendout(10)
        controlled_broker.rabbitmqctl("stop_app")
        try:
            for place in range(WORKERS):
                work.fleet.replace(place)
            work.wait_finished()
            time.sleep(size(short=0, long=60))
        finally:
            controlled_broker.rabbitmqctl("start_app")
        recovered = lab.time_recovery(lambda: lab.state(before))
        lab.wait_finished(before)
    lab.check("broker stopped for a whole sendout", recovered=recovered)


@pytest.mark.long
def test_deleted_queues_are_declared_again(broker_lab: Lab) -> None:
    """Workers declare deleted queues again and consume them. A client that publishes in the meantime gets an error."""
    lab, rounds = broker_lab, size(short=1, long=10)
    recovered = 0.0
    with busy_system(lab) as work:
        for _ in range(rounds):
            name = lab.add_message(5)
            lab.delete_queues(*QUEUES)
            recovered = max(recovered, lab.time_recovery(partial(can_start_sendout, lab, name)))
        work.wait_finished()
        all_sendouts_finish(lab)
    lab.check("queues deleted while workers run", rounds=rounds, recovered=recovered)


def all_sendouts_finish(lab: Lab) -> None:
    def states() -> set[str]:
        return {row["state"] for row in lab.rows("SELECT state FROM sendout")}

    eventually(lambda: states() == {"finished"}, "all sendouts to finish", within=END_SECONDS, seen=states)


def can_start_sendout(lab: Lab, name: str) -> bool:
    """Try to publish a sendout; return whether that succeeded. If so, wait until a worker has consumed it."""
    result = lab.begin("send", "--message", name, "--group", name)()
    if result.code == DONE:
        eventually(partial(lab.state, result.out.strip()), "a worker to consume the sendout", within=END_SECONDS)
    else:
        assert "start a worker" in result.err
    return result.code == DONE


@pytest.mark.long
def test_a_broker_without_memory_rejects_publishers_in_time(broker_lab: Lab, controlled_broker: Broker) -> None:
    """Without memory, publishers get an error in time and a running sendout continues.

    When the broker has memory again, commands are consumed.
    """
    lab = broker_lab
    with busy_system(lab) as work:
        controlled_broker.rabbitmqctl("set_vm_memory_high_watermark", "0")
        try:
            name = lab.add_message(5)
            began = time.monotonic()
            result = lab.begin("send", "--message", name, "--group", name)()
            assert time.monotonic() < began + REPORTED_SECONDS
            assert (result.code, result.err.count("\n")) == (FAILED, 1), result
            work.wait_finished()
        finally:
            controlled_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
        recovered = lab.time_recovery(lambda: can_start_sendout(lab, name))
        all_sendouts_finish(lab)
    lab.check("broker out of memory", recovered=recovered)
