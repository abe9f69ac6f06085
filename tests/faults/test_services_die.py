"""A database that dies or has no room, a broker that throws everybody out, stops, loses its queues or takes nothing."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from coupons import topology
from coupons.broker import connected
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
"""Longer than a restart takes: then nobody may be uncertain."""


TOLD_SECONDS = 25
"""A publish that nobody confirms is given up after ten, and so is taking leave."""


# --- the database --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a lab is made of, but for the database."""

    broker_url: str
    sink: FaultySink
    folder: Path
    results: list[FaultResult]

    @contextmanager
    def lab(self, *, small: bool) -> Iterator[tuple[Postgres, Lab]]:
        """With a database server of its own."""
        with postgres.private(self.folder, small=small) as server:
            asyncio.run(migrate(server.url))
            services = Services(server.url, self.broker_url, self.sink.url, self.sink.ledger)
            yield server, Lab(services, self.sink, self.folder, self.results)


@pytest.fixture
async def shelf(broker_url: str, faulty_sink: FaultySink, tmp_path: Path, results: list[FaultResult]) -> Shelf:
    await declare_queues(broker_url)
    return Shelf(broker_url, faulty_sink, tmp_path, results)


async def declare_queues(broker_url: str) -> None:
    async with connected(broker_url, "fault lab") as connection:
        await topology.declare(await connection.channel())


def test_database_dies(shelf: Shelf) -> None:
    """In mid-word, again and again, during a sendout and an import: what was committed holds, all are soon at work."""
    rounds, pause = size(short=1, long=6), size(short=2, long=20)
    recovered = 0.0
    with shelf.lab(small=False) as (server, lab):
        with busy_system(lab, recipients=size(short=200, long=12_000), lease_seconds=LEASE_SECONDS) as work:
            for _ in range(rounds):
                work.start_import(size(short=10_000, long=100_000))
                time.sleep(pause)
                server.die()
                server.start()
                recovered = max(recovered, work.time_recovery())
            work.wait_finished()
        lab.check("PostgreSQL dies (immediate)", rounds=rounds, recovered=recovered)


@pytest.mark.long
def test_disk_is_full(shelf: Shelf) -> None:
    """No room during a sendout and an import; with room again all goes on, nothing lost or twice, nobody called."""
    rounds = size(short=1, long=3)
    with shelf.lab(small=True) as (server, lab):
        recovered = max(runs_out_of_room(server, lab) for _ in range(rounds))
        lab.check("no room on PostgreSQL's disk", rounds=rounds, recovered=recovered)


def runs_out_of_room(server: Postgres, lab: Lab) -> float:
    """Seconds to recover."""
    with busy_system(lab, codes=10_000, lease_seconds=LEASE_SECONDS) as work:
        server.fill()
        work.start_import(size(short=20_000, long=100_000))
        eventually(lambda: server.is_full, "somebody to notice")
        time.sleep(size(short=0, long=10))
        server.make_room()
        recovered = work.time_recovery()
        work.wait_finished()
    return recovered


# --- the broker ----------------------------------------------------------------------------------------------------


@pytest.fixture
def node(broker: Broker, tmp_path: Path) -> Iterator[Broker]:
    """A broker that can be told to misbehave: the session's, or one of its own if that is only an address."""
    if broker.control:
        yield broker
    else:
        with private_rabbitmq(tmp_path, say=print) as private:
            yield private


@pytest.fixture
async def broker_lab(lab: Lab, broker: Broker, node: Broker, shelf: Shelf) -> Lab:
    """A lab whose broker that is."""
    if node is broker:
        return lab
    await declare_queues(node.url)
    return Lab(replace(lab.direct, broker_url=node.url), shelf.sink, shelf.folder, shelf.results)


@pytest.mark.long
def test_broker_closes_connections(broker_lab: Lab, node: Broker) -> None:
    """Every two seconds: no command is lost or carried out twice, and a sendout does not mind."""
    lab, rounds, recovered = broker_lab, size(short=2, long=30), 0.0
    with busy_system(lab) as work:
        meanwhile = []
        for _ in range(rounds):
            node.rabbitmqctl("close_all_connections", "--global", "a test")
            began = time.monotonic()
            meanwhile.append(lab.start_sendout(5, lists=1))
            recovered = max(recovered, lab.time_recovery(partial(lab.state, meanwhile[-1])))
            time.sleep(max(0, began + 2 - time.monotonic()))
        work.wait_finished()
        lab.wait_finished(*meanwhile)
        assert all(worker.log.count("no broker, trying again") > rounds / 2 for worker in work.fleet.workers)
    lab.check("the broker closes all connections, every 2 s", rounds=rounds, recovered=recovered)


@pytest.mark.long
def test_broker_stops(broker_lab: Lab, node: Broker) -> None:
    """For a whole sendout, which comes to its end by the sweep; what was published before is taken when it is back."""
    lab = broker_lab
    with busy_system(lab) as work:
        for worker in work.fleet.workers:
            worker.stop()
        before = lab.start_sendout(10)
        node.rabbitmqctl("stop_app")
        try:
            for place in range(WORKERS):
                work.fleet.replace(place)
            work.wait_finished()
            time.sleep(size(short=0, long=60))
        finally:
            node.rabbitmqctl("start_app")
        recovered = lab.time_recovery(lambda: lab.state(before))
        lab.wait_finished(before)
    lab.check("the broker stops for a whole sendout", recovered=recovered)


@pytest.mark.long
def test_queues_are_deleted(broker_lab: Lab) -> None:
    """Under the workers: they declare them again and consume; whoever publishes meanwhile is told."""
    lab, rounds = broker_lab, size(short=1, long=10)
    recovered = 0.0
    with busy_system(lab) as work:
        for _ in range(rounds):
            name = lab.add_message(5)
            lab.delete_queues(*QUEUES)
            recovered = max(recovered, lab.time_recovery(partial(is_begun, lab, name)))
        work.wait_finished()
        all_sendouts_finish(lab)
    lab.check("the queues are deleted under the workers", rounds=rounds, recovered=recovered)


def all_sendouts_finish(lab: Lab) -> None:
    def states() -> set[str]:
        return {row["state"] for row in lab.rows("SELECT state FROM sendout")}

    eventually(lambda: states() == {"finished"}, "all sendouts to finish", within=END_SECONDS, seen=states)


def is_begun(lab: Lab, name: str) -> bool:
    """Whether there are queues that take a sendout, and a worker that takes it out."""
    result = lab.begin("send", "--message", name, "--group", name)()
    if result.code == DONE:
        eventually(partial(lab.state, result.out.strip()), "a worker that takes it", within=END_SECONDS)
    else:
        assert "start a worker" in result.err
    return result.code == DONE


@pytest.mark.long
def test_broker_has_no_memory(broker_lab: Lab, node: Broker) -> None:
    """Publishers are told so in time; a sendout goes on; with memory again what is published is taken."""
    lab = broker_lab
    with busy_system(lab) as work:
        node.rabbitmqctl("set_vm_memory_high_watermark", "0")
        try:
            name = lab.add_message(5)
            began = time.monotonic()
            result = lab.begin("send", "--message", name, "--group", name)()
            assert time.monotonic() < began + TOLD_SECONDS
            assert (result.code, result.err.count("\n")) == (FAILED, 1), result
            work.wait_finished()
        finally:
            node.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
        recovered = lab.time_recovery(lambda: is_begun(lab, name))
        all_sendouts_finish(lab)
    lab.check("the broker has no memory", recovered=recovered)
