"""A private PostgreSQL server that can crash, restart with the same data and port, and run out of disk space."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from sandbox import postgres
from sandbox.postgres import NAME, Programs
from sandbox.process import free_ports, group_of

DISK_BYTES = 512 * 2**20
LITTLE_WAL = "min_wal_size = 32MB\nmax_wal_size = 64MB\n"
"""Limits for the WAL. The default of `max_wal_size`, 1 GB, would fill the disk."""
NO_ROOM = "No space left on device"
PANIC = "PANIC:"
"""In the log if the server could not write WAL. It exits at once and cannot start before the disk has space."""
PIECES = (2**20, 2**12, 1)
CANNOT_MOUNT = """a full disk is a small tmpfs, which cannot be mounted from here: run this test as root, with a sudo
that asks no password, or in a container with --cap-add SYS_ADMIN"""


class Postgres:
    """A PostgreSQL server with durable writes: a confirmed commit is on disk."""

    def __init__(self, programs: Programs, home: Path, log: Path) -> None:
        self._programs = programs
        self._data = home / "data"
        self._ballast = self._data / "ballast"
        self._log = log
        [self._port] = free_ports(1)
        self._running = ExitStack()
        self._filled_at = 0
        postgres.create_cluster(programs, home, password := os.urandom(12).hex())
        self.url = f"postgresql://{NAME}:{password}@127.0.0.1:{self._port}/{NAME}"
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(LITTLE_WAL)
        self.start()
        programs.must_run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", NAME, NAME, password=password)

    def start(self) -> None:
        """Start the server. Raises ServiceError if it does not answer, for example because of a full disk."""
        self._running.enter_context(
            postgres.running_server(self._programs, self._data, self._port, self._log, durable=True)
        )

    def die(self) -> None:
        """Stop the server without finishing or writing anything, like `pg_ctl stop -m immediate`."""
        self._running.close()

    def fill(self) -> None:
        """Fill the disk to the last byte."""
        for octets in PIECES:
            with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
                while file.write(bytes(octets)):
                    pass
        self._filled_at = len(self._log.read_text())

    @property
    def is_full(self) -> bool:
        """Whether a write has failed since the disk was filled."""
        return NO_ROOM in self._log_since_full

    def make_room(self) -> None:
        """Free the space and restart the server if it has crashed, as a service manager does."""
        self._ballast.unlink()
        if PANIC in self._log_since_full or not self.answers:
            self.die()
            self.start()

    @property
    def _log_since_full(self) -> str:
        return self._log.read_text()[self._filled_at :]

    @property
    def answers(self) -> bool:
        return self._programs.run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)).returncode == 0


@contextmanager
def private(folder: Path, *, small: bool = False) -> Iterator[Postgres]:
    """Run a server and yield it. If `small`, it has its own disk of DISK_BYTES, else it uses the fastest storage."""
    account = postgres.unprivileged_account()
    with postgres.temporary_home(account, folder, postgres.fastest_folder()) as home, ExitStack() as stack:
        if small:
            stack.enter_context(disk(home / "data", account))
        programs = Programs(postgres.reachable_programs(postgres.find_programs(), home, account), account)
        server = Postgres(programs, home, folder / "postgres.log")
        stack.callback(server.die)
        yield server


@contextmanager
def disk(at: Path, account: str | None) -> Iterator[None]:
    at.mkdir(mode=0o700)
    if account:
        shutil.chown(at, account, group_of(account))
    owner = at.stat()
    options = f"size={DISK_BYTES},mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    if not as_root("mount", "-t", "tmpfs", "-o", options, "coupons", str(at)):
        pytest.fail(CANNOT_MOUNT)
    try:
        yield
    finally:
        as_root("umount", str(at))


def as_root(*command: str) -> bool:
    sudo = () if os.geteuid() == 0 else ("sudo", "-n")
    if not all(map(shutil.which, (*sudo[:1], command[0]))):
        return False
    return subprocess.run([*sudo, *command], check=False, capture_output=True).returncode == 0
