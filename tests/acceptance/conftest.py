"""Fixtures that give acceptance tests a shop."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.acceptance.mails", "tests.acceptance.processes", "tests.acceptance.system")

from sandbox.packages import install_packages  # noqa: E402 - pytest rewrites only later imports
from sandbox.rabbitmq import Broker  # noqa: E402 - as above
from sandbox.services import Services, Sink, private_sink  # noqa: E402 - as above
from tests.acceptance.system import Shop  # noqa: E402 - as above
from tests.services import VirtualHosts, database, delete_queues  # noqa: E402 - as above


@pytest.fixture
def shop(services: Services, sink: Sink, tmp_path: Path) -> Iterator[Shop]:
    """Provide a shop without a worker for one test. At the end the shop's invariants and texts are checked."""
    shop = Shop(services, sink, tmp_path)
    yield shop
    shop.check_invariants()
    shop.check_privacy()


@pytest.fixture
def slow_shop(services: Services, tmp_path: Path) -> Iterator[Shop]:
    """Provide a shop whose relay replies after 0.3 s. With ten connections the relay accepts about 30 mails/s."""
    with private_sink(tmp_path / "slow.jsonl", "--delay", "0.3") as sink:
        shop = Shop(replace(services, smtp_url=sink.url, ledger=sink.ledger), sink, tmp_path)
        yield shop
        shop.check_invariants()
        shop.check_privacy()


@pytest.fixture(scope="module")
async def open_services(
    postgres_url: str, template_database: str, broker: Broker, virtual_hosts: VirtualHosts, open_sink: Sink
) -> AsyncIterator[Services]:
    if not broker.control:
        await delete_queues(broker.url)
    async with database(postgres_url, template_database) as url:
        broker_url = virtual_hosts.take() if broker.control else broker.url
        yield Services(url, broker_url, open_sink.url, open_sink.ledger)


@pytest.fixture(scope="module")
def open_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    with private_sink(tmp_path_factory.mktemp("sink") / "mails.jsonl") as sink:
        yield sink


@pytest.fixture(scope="module")
def open_shop(open_services: Services, open_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Provide a shop with one worker for all tests of a module. Each test uses its own lists, groups and messages."""
    shop = Shop(open_services, open_sink, tmp_path_factory.mktemp("shop"))
    with shop.worker():
        yield shop
    shop.verify()
    shop.check_privacy()


@pytest.fixture(scope="session")
def amqp_tools() -> None:
    """Install `amqp-publish` if it is missing, or fail with instructions."""
    if shutil.which("amqp-publish") is None:
        install_packages("amqp-tools")
