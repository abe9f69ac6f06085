"""Fixtures that give each test a lab, and hooks that print the table of all results."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

pytest.register_assert_rewrite("tests.acceptance.processes", "tests.acceptance.system", "tests.faults.lab")

from coupons import broker, topology  # noqa: E402 - assert rewriting must be registered before the import
from sandbox.services import Services  # noqa: E402 - as above
from tests.faults.lab import LONG, FaultResult, FaultySink, Lab  # noqa: E402 - as above
from tests.faults.model_worker import shorten_retries  # noqa: E402 - as above
from tests.faults.report import render, save  # noqa: E402 - as above
from tests.services import database  # noqa: E402 - as above

RESULTS = pytest.StashKey[list[FaultResult]]()


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> list[FaultResult]:
    return request.config.stash.setdefault(RESULTS, [])


@pytest.fixture
def faulty_sink(tmp_path: Path) -> Iterator[FaultySink]:
    sink = FaultySink(tmp_path / "faulty.jsonl")
    yield sink
    sink.kill()


@pytest.fixture
async def lab(services: Services, faulty_sink: FaultySink, tmp_path: Path, results: list[FaultResult]) -> Lab:
    """A lab whose queues exist, as if a worker had run before."""
    async with broker.connect(services.broker_url, "fault lab") as connection:
        await topology.declare(await connection.channel())
    return Lab(services, faulty_sink, tmp_path, results)


@pytest.fixture(scope="module")
async def model_url(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """The URL of a database for all tests of this module. Each model empties it first."""
    async with database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers retry at once, and capture their logs."""
    shorten_retries(monkeypatch)
    with capture_logs():
        yield


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes a minute or more; only `make faults` runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that only `make faults` runs."""
    later = [item for item in items if item.get_closest_marker("long") and not LONG]
    items[:] = [item for item in items if item not in later]
    config.hook.pytest_deselected(items=later)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table; save its rows in the file that COUPONS_FAULTS_ROWS names, if it is set."""
    if rows := config.stash.get(RESULTS, []):
        terminalreporter.write_sep("=", "faults")
        terminalreporter.write_line(render(rows))
        if file := os.environ.get("COUPONS_FAULTS_ROWS"):
            save(Path(file), rows)
