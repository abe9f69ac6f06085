"""Fixtures for the services. They start when the first test requests one; unit tests start none."""

import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coupons.migrate import migrate
from sandbox.rabbitmq import Broker
from sandbox.services import Services, Sink, private_sink
from tests.services import (
    POSTGRES_IMAGE,
    RABBITMQ_IMAGE,
    VirtualHosts,
    choose_kind,
    database,
    delete_queues,
    postgres_server,
    rabbitmq_server,
    session_folder,
)

ROOT = Path(__file__).parent.parent

KIND_DESCRIPTIONS = {
    "address": "at the addresses in the environment",
    "docker": f"in containers of {POSTGRES_IMAGE} and {RABBITMQ_IMAGE}, started by testcontainers",
    "local": "private local programs under .test/",
}

MAX_LOGS = 8


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that prints a line at once, although pytest captures output."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    assert reporter
    assert capture

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)

    return write


@pytest.fixture(scope="session")
def service_kind(say: Callable[[str], None]) -> str:
    kind = choose_kind(os.environ)
    say(f"PostgreSQL and RabbitMQ: {KIND_DESCRIPTIONS[kind]}")
    return kind


@pytest.fixture(scope="session")
def service_folder() -> Iterator[Path]:
    with session_folder(ROOT / ".test") as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_url(service_kind: str, service_folder: Path) -> Iterator[str]:
    """The URL of the server's default database. Its user may create other databases."""
    with postgres_server(service_kind, service_folder) as url:
        yield url


@pytest.fixture(scope="session")
async def template_database(postgres_url: str) -> AsyncIterator[str]:
    """The name of a migrated database. Copying it takes a tenth of the time of migrating an empty one."""
    async with database(postgres_url) as url:
        await migrate(url)
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """A new database without any migration."""
    async with database(postgres_url) as url:
        yield url


@pytest.fixture
async def database_url(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """A new, migrated, empty database."""
    async with database(postgres_url, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def broker(service_kind: str, service_folder: Path, say: Callable[[str], None]) -> Iterator[Broker]:
    with rabbitmq_server(service_kind, service_folder, say=say) as broker:
        yield broker


@pytest.fixture(scope="session")
def virtual_hosts(broker: Broker) -> VirtualHosts:
    return VirtualHosts(broker)


@pytest.fixture
async def broker_url(broker: Broker, virtual_hosts: VirtualHosts) -> str:
    """A new, empty virtual host. If the broker is given by its address, its queues are deleted instead."""
    if broker.control:
        return virtual_hosts.take()
    await delete_queues(broker.url)
    return broker.url


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """A mail sink for this test, in its own process."""
    with private_sink(tmp_path / "mails.jsonl") as sink:
        yield sink


@pytest.fixture
def services(database_url: str, broker_url: str, sink: Sink) -> Services:
    """A new database, a new virtual host and the test's `sink`."""
    return Services(database_url, broker_url, sink.url, sink.ledger)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Append the workers' logs to the report of a failed test."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        logs = [log for each in item.funcargs.values() for log in getattr(each, "worker_logs", [])]
        report.sections += [(f"log of {log.name}", log.read_text()) for log in logs[-MAX_LOGS:]]
    return report
