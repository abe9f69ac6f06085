"""Workers with wrong and jumping clocks: leases and rate limits depend on the database's clock only."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from coupons.commands import StartSendout
from sandbox.packages import install_packages
from tests.acceptance.processes import Worker
from tests.acceptance.test_pace import TOLERANCE
from tests.faults.lab import END_SECONDS, QUICK_TAKEOVER, Lab, size
from tests.faults.oracle import read
from tests.waiting import eventually

LIBRARY = "faketime/libfaketimeMT.so.1"
PER_HOUR, BATCH = 360_000, 100
"""A rate limit of 100 mails per second, with batches of 100 mails."""
OFFSETS = ("+3h", "-2h", "+40d", "-1s", "+90s", "-10y")


def library() -> Path | None:
    return next(Path("/usr/lib").glob(f"*/{LIBRARY}"), None)


@pytest.fixture(scope="session")
def faketime() -> Path:
    """The path of Debian's libfaketime. If it is missing, it is installed, or the test fails with instructions."""
    if (found := library()) is None:
        install_packages("libfaketime")
        found = library()
    assert found, "the package libfaketime has no library"
    return found


StartWorker = Callable[[str | Path], Worker]


@pytest.fixture
def start_worker(lab: Lab, faketime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartWorker]:
    """A function that starts a worker. Its clock is off by a fixed offset, or by the offset that a file contains."""

    def start(clock: str | Path) -> Worker:
        with monkeypatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(faketime))
            environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")  # a monotonic clock never jumps
            environment.setenv("FAKETIME_NO_CACHE", "1")
            environment.setenv("FAKETIME_TIMESTAMP_FILE" if isinstance(clock, Path) else "FAKETIME", str(clock))
            return stack.enter_context(lab.worker(batch_size=BATCH, **QUICK_TAKEOVER))

    with ExitStack() as stack:
        yield start


def start_time(worker: Worker) -> datetime:
    """The time when the worker started, by its own clock."""
    return datetime.fromisoformat(worker.log.split()[0])


def arrival_times(lab: Lab, sendout: UUID) -> list[datetime]:
    """When the sink accepted each mail of a sendout, by the sink's clock."""
    lines = lab.sink.ledger.read_text().splitlines()
    times = [datetime.fromisoformat(json.loads(line)["at"]) for line in lines]
    return sorted(at for at, copy in zip(times, read(lab.sink.ledger), strict=True) if copy.delivery[0] == sendout)


@pytest.mark.long
def test_wrong_and_jumping_clocks_are_harmless(lab: Lab, start_worker: StartWorker, tmp_path: Path) -> None:
    """No mail is lost, duplicated or uncertain if workers' clocks are six hours fast, six hours slow or jump.

    A scheduled sendout does not start early and keeps its rate limit.
    """
    jumping = tmp_path / "clock"
    jumping.write_text("+0")
    lab.sink.kill()
    lab.sink.start(delay=0.1)
    fast, slow, _ = start_worker("+6h"), start_worker("-6h"), start_worker(jumping)
    assert start_time(fast) - start_time(slow) > timedelta(hours=11)
    start_at = datetime.now(UTC) + timedelta(seconds=size(short=1, long=20))
    name = lab.add_message(size(short=200, long=3_000), lists=1)
    later = StartSendout(message=name, group=name, start_at=start_at, per_hour=PER_HOUR)
    lab.publish(later)
    now = lab.start_sendout(size(short=600, long=20_000))
    jumps = 0

    def states() -> set[str]:
        return {lab.state(now), lab.state(later.id)}

    def both_finished() -> bool:
        nonlocal jumps
        if states() == {"finished"}:
            return True
        jumping.write_text(OFFSETS[jumps % len(OFFSETS)])
        jumps += 1
        return False

    eventually(both_finished, "both sendouts to finish", within=END_SECONDS, every=0, seen=states)
    for number, at in enumerate(arrival_times(lab, later.id)):
        assert at >= start_at + timedelta(seconds=number // BATCH * BATCH * 3_600 / PER_HOUR) - TOLERANCE
    lab.check("wrong and jumping clocks", rounds=jumps)
