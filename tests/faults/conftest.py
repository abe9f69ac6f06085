"""A lab for each test, and the table of all that was tried."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.acceptance.processes", "tests.acceptance.system", "tests.faults.lab")

from coupons import broker, topology  # noqa: E402 - rewriting must be asked for before the import
from sandbox.services import Services  # noqa: E402 - as above
from tests.faults.lab import LONG, FaultySink, Lab, Row  # noqa: E402 - as above
from tests.faults.report import keep, printed  # noqa: E402 - as above

TABLE = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> list[Row]:
    return request.config.stash.setdefault(TABLE, [])


@pytest.fixture
def faulty_sink(tmp_path: Path) -> Iterator[FaultySink]:
    sink = FaultySink(tmp_path / "faulty.jsonl")
    yield sink
    sink.kill()


@pytest.fixture
async def lab(services: Services, faulty_sink: FaultySink, tmp_path: Path, table: list[Row]) -> Lab:
    """Its queues are there already, as if a worker had run before."""
    async with broker.connected(services.broker_url, "fault lab") as connection:
        await topology.declare(await connection.channel())
    return Lab(services, faulty_sink, tmp_path, table)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes a minute or more, so that only `make faults` runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is for `make faults` alone is deselected, of which pytest gives the number."""
    later = [item for item in items if item.get_closest_marker("long") and not LONG]
    items[:] = [item for item in items if item not in later]
    config.hook.pytest_deselected(items=later)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table; COUPONS_FAULTS_ROWS names a file that keeps its rows."""
    if rows := config.stash.get(TABLE, []):
        terminalreporter.write_sep("=", "faults")
        terminalreporter.write_line(printed(rows))
        if file := os.environ.get("COUPONS_FAULTS_ROWS"):
            keep(Path(file), rows)
