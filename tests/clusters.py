"""A private PostgreSQL server for tests of dump, restore, base backup and promotion with PostgreSQL's own programs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from sandbox import postgres
from sandbox.process import free_ports
from tests.services import execute


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data folder and the port of its server."""

    programs: postgres.Programs
    home: Path
    logs: Path
    password: str
    port: int
    data: str = "data"

    @property
    def url(self) -> str:
        return f"postgresql://{postgres.NAME}:{self.password}@127.0.0.1:{self.port}/postgres"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run the server and yield its URL. At the end of the block it is stopped as if killed; no data are lost."""
        with postgres.running_server(
            self.programs, self.home / self.data, self.port, self.logs / "postgres.log", durable=True
        ):
            yield self.url

    def dump(self, url: str, *options: str) -> Path:
        """Dump a database with `pg_dump`."""
        file = self.home / "dump"
        self._run("pg_dump", f"--file={file}", *options, url)
        return file

    def replay(self, url: str, file: Path) -> None:
        """Restore a plain dump with `psql`, which by default continues after errors."""
        self._run("psql", "--quiet", f"--file={file}", url)

    def restore(self, url: str, file: Path, *options: str) -> None:
        self._run("pg_restore", f"--dbname={url}", *options, file)

    def replica(self) -> "Cluster":
        """Create a streaming replica from a base backup of the running server."""
        source = f"host=127.0.0.1 port={self.port} user={postgres.NAME} password={self.password}"
        self._run("pg_basebackup", f"--pgdata={self.home / 'replica'}", f"--dbname={source}", "-R", "--checkpoint=fast")
        return replace(self, data="replica", port=free_ports(1)[0])

    def _run(self, program: str, *arguments: str | Path) -> None:
        self.programs.must_run(program, *arguments, password=self.password)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Yield a new cluster, which is removed at the end of the block."""
    account = postgres.unprivileged_account()
    with postgres.temporary_home(account, folder) as home:
        programs = postgres.Programs(postgres.reachable_programs(postgres.find_programs(), home, account), account)
        made = Cluster(programs, home, folder, "secret", free_ports(1)[0])
        postgres.create_cluster(programs, home, made.password)
        yield made


async def cut_off(replica_url: str) -> None:
    """Stop replication from the primary."""
    await execute(replica_url, "ALTER SYSTEM SET primary_conninfo = ''")
    await execute(replica_url, "SELECT pg_reload_conf()")


async def promote(replica_url: str) -> None:
    await execute(replica_url, "SELECT pg_promote()")


def with_database(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()
