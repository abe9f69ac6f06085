"""A PostgreSQL of a test's own that can die, come back with the same data on the same port, and run out of disk."""

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
"""It would fill such a disk by itself: the default is 1 GB."""
NO_ROOM = "No space left on device"
PANIC = "PANIC:"
"""It had no room for its log of changes: it ends at once, and cannot start before there is some."""
PIECES = (2**20, 2**12, 1)
CANNOT_MOUNT = """a full disk is a small tmpfs, which cannot be mounted from here: run this test as root, with a sudo
that asks no password, or in a container with --cap-add SYS_ADMIN"""


class Postgres:
    """Durable: what it has confirmed is on the disk."""

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
        """Wait until it answers. Raises ServiceError: it does not, on a full disk for example."""
        self._running.enter_context(postgres.server(self._programs, self._data, self._port, self._log, durable=True))

    def die(self) -> None:
        """As `pg_ctl stop -m immediate` has it: nothing is finished, nothing written any more."""
        self._running.close()

    def fill(self) -> None:
        """No room is left on its disk, not for a byte."""
        for octets in PIECES:
            with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
                while file.write(bytes(octets)):
                    pass
        self._filled_at = len(self._log.read_text())

    @property
    def is_full(self) -> bool:
        """Whether it has noticed since it was filled."""
        return NO_ROOM in self._said

    def make_room(self) -> None:
        """And start it if it could not go on, as whatever looks after a service does."""
        self._ballast.unlink()
        if PANIC in self._said or not self.answers:
            self.die()
            self.start()

    @property
    def _said(self) -> str:
        return self._log.read_text()[self._filled_at :]

    @property
    def answers(self) -> bool:
        return self._programs.run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)).returncode == 0


@contextmanager
def private(folder: Path, *, small: bool = False) -> Iterator[Postgres]:
    """With `small`, on a disk of its own, of DISK_BYTES; else where it starts soonest, as only its processes die."""
    account = postgres.unprivileged_account()
    with postgres.home_of(account, folder, postgres.quickest()) as home, ExitStack() as stack:
        if small:
            stack.enter_context(disk(home / "data", account))
        programs = Programs(postgres.reachable(postgres.installed_programs(), home, account), account)
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
