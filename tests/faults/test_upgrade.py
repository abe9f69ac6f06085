"""Workers of an older version are harmless if they were not stopped before the database was migrated."""

import asyncio
import re
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import asyncpg
import pytest

from coupons import migrate
from coupons.database import connect
from coupons.migrate import Migration
from sandbox.services import Services
from tests.acceptance.processes import FAILED
from tests.acceptance.system import Arguments, letter
from tests.faults.lab import QUICK_TAKEOVER, ROOT, FaultResult, FaultySink, Lab, size


@dataclass(frozen=True, slots=True)
class Version:
    """An older version. It runs with the packages of today's environment.

    So these tests cover only the database and the queues, which both versions share.
    """

    commit: str
    """The last commit whose program has this number of migrations."""
    migrations: int
    limit: str
    """The setting that limits the mails in flight."""
    is_ready: str
    """What a worker logs when it is ready."""

    def list_migrations(self) -> list[Migration]:
        return [each for each in migrate.migrations() if each.number <= self.migrations]

    async def migrate(self, database_url: str) -> None:
        """Migrate the database to this version."""
        with mock.patch.object(migrate, "migrations", return_value=self.list_migrations()):
            await migrate.migrate(database_url)

    @property
    def has_restore_guard(self) -> bool:
        return self.migrations > 3


VERSIONS = [
    Version("ab77d1d642e37095b5f13b18bc0940b7a66dedf8", 3, "window", "taking commands"),
    Version("a37693662b58162f87309097d4c785bede3d4a4a", 10, "max_in_flight", "consuming commands"),
]
MAX_IN_FLIGHT = 40
OLD_WORKERS = 2
PACKAGES = ("coupons", "producers", "workers")


@pytest.fixture(params=VERSIONS, ids=lambda version: f"{version.migrations} migrations")
def version(request: pytest.FixtureRequest) -> Version:
    found: Version = request.param
    return found


@pytest.fixture
def program_before(version: Version, tmp_path: Path) -> Path:
    """A folder with the older version from the repository's history. A shallow clone fetches this commit first."""
    archive = ["git", "-C", str(ROOT), "archive", version.commit, *PACKAGES]
    found = subprocess.run(archive, capture_output=True, check=False)
    if found.returncode:
        fetch = ["git", "-C", str(ROOT), "fetch", "--quiet", "--depth=1", "origin", version.commit]
        subprocess.run(fetch, capture_output=True, check=False, timeout=60)
        found = subprocess.run(archive, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"this clone's history lacks {version.commit[:7]}: git fetch --unshallow")
    folder = tmp_path / "before"
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=found.stdout, check=True, timeout=60)
    for each in version.list_migrations():  # some were edited before their release
        file = folder / "coupons" / "migrations" / f"{each.number:04}_{each.name}.sql"
        file.write_text(each.sql, encoding="utf-8")
    return folder


@pytest.fixture
def old_lab(
    services: Services, empty_database_url: str, faulty_sink: FaultySink, tmp_path: Path, results: list[FaultResult]
) -> Lab:
    """A lab whose database has no tables yet."""
    return Lab(replace(services, database_url=empty_database_url), faulty_sink, tmp_path, results)


def known_to(version: Version, command: Arguments) -> Arguments:
    """The command for this version: `group import` of the first one always waits and does not know `--wait`."""
    return command if version.has_restore_guard else tuple(each for each in command if each != "--wait")


FENCED = {"deliveries.sql": ("claim", "abandoned", "hold", "flush"), "sendouts.sql": ("claim",)}
"""The statements with which workers claim and use batches, and claim a sendout to prepare it."""


@pytest.mark.parametrize("version", VERSIONS[1:], indirect=True, ids=["10 migrations"])
async def test_statements_of_old_workers_are_rejected(
    version: Version, program_before: Path, empty_database_url: str
) -> None:
    """After the migration, a session cannot run a statement that it prepared before."""
    await version.migrate(empty_database_url)
    async with connect(empty_database_url) as worker:
        statements = []
        for file, names in FENCED.items():
            text = (program_before / "coupons" / "store" / file).read_text(encoding="utf-8")
            blocks = dict(re.findall(r"^-- (\w+): (.*?)(?=^-- \w+: |\Z)", text, re.DOTALL | re.MULTILINE))
            statements += [await worker.prepare(f"-- {blocks[name]}") for name in names]
        for statement in statements:
            await statement.fetch(*[None for _ in statement.get_parameters()])
        await migrate.migrate(empty_database_url)
        for statement in statements:
            with pytest.raises(asyncpg.UndefinedFunctionError):
                await statement.fetch(*[None for _ in statement.get_parameters()])


@pytest.mark.long
def test_old_workers_that_were_not_stopped_fail_safely(
    old_lab: Lab, version: Version, program_before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the migration, old workers write nothing and hand over no mail, and no mail is lost or sent twice.

    The mails that old workers had in flight become uncertain: at most the limit per worker. New workers finish the
    sendout that the old workers started. An old worker that is started afterwards refuses the newer database.

    New commands are published only after the old workers have stopped, because an old worker would dead-letter them.
    """
    lab, people = old_lab, [f"upgrade{number}@example.org" for number in range(size(short=800, long=20_000))]
    settings = {version.limit: MAX_IN_FLIGHT, "batch_size": 100, **QUICK_TAKEOVER}
    lists = {name: [f"{name.upper()}-{number:07}" for number in range(2 * len(people))] for name in ("old", "older")}
    lab.sink.kill()
    lab.sink.start(delay=size(short=200, long=50) / 1_000)
    with ExitStack() as old, ExitStack() as new:
        with monkeypatch.context() as environment:
            environment.setenv("PYTHONPATH", str(program_before))
            asyncio.run(version.migrate(lab.services.database_url))
            workers = [old.enter_context(lab.worker(ready=False, **settings)) for _ in range(OLD_WORKERS)]
            for worker in workers:
                worker.says(version.is_ready)
                worker.may_log_errors = True
            create = [("list", "create", name) for name in lists]
            lab.together(known_to(version, lab.importing_group("upgrade", people)), *create)
            message = (*lab.saving("upgrade", letter(*lists)), "--from", "shop@example.org")
            lab.together(message, *(lab.importing(*each) for each in lists.items()))
            begun = [lab.begin_sending("upgrade", "upgrade")]
        lab.mails_come(50)
        lab.coupons("migrate")
        migrated = lab.mail_count()
        if not version.has_restore_guard:
            lab.coupons("restore-guard", "accept", "--yes")
        assert not any(worker.is_dead for worker in workers)
        assert lab.mail_count() <= migrated + OLD_WORKERS * MAX_IN_FLIGHT
        for _ in range(2):
            new.enter_context(lab.worker(batch_size=100, max_in_flight=MAX_IN_FLIGHT, **QUICK_TAKEOVER))
        lab.becomes("sending", begun[0])
        old.close()
        begun.append(lab.begin_sending("upgrade", "upgrade"))
        lab.becomes("sending", begun[1])
        with monkeypatch.context() as environment:
            environment.setenv("PYTHONPATH", str(program_before))
            assert "the database is newer than this program" in lab.coupons("worker", code=FAILED).err
        lab.wait_finished(*begun)
    lab.check("old workers during a migration", max_uncertain=OLD_WORKERS * MAX_IN_FLIGHT)
