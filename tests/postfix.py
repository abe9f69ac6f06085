"""A private Postfix that accepts mail on a port of 127.0.0.1, queues it on disk and relays all of it onward."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.packages import install_packages
from sandbox.process import ServiceError, free_ports, is_free, running, wait_until

PROGRAMS = Path("/usr/lib/postfix/sbin")
START_LIMIT_SECONDS = 30
COMMAND_LIMIT_SECONDS = 60

# Queues of mails in transit or deferred. "hold" and "corrupt" stay empty here.
QUEUES = ("maildrop", "incoming", "active", "deferred")

# Debian's package asks for the kind of host and starts a server; a policy-rc.d that exits with 101 prevents that during
# the installation.
# No DNS lookups: the path of a mail must not depend on the machine's resolver.
MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/postfix.log
maillog_file_prefixes = {home}
myhostname = postfix.localhost
mydestination =
local_recipient_maps =
local_transport = error:there are no mailboxes here
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_forbid_unauth_pipelining = yes
smtp_dns_support_level = disabled
relayhost = {onward}
"""

TLS = """
smtpd_tls_security_level = may
smtpd_tls_chain_files = {home}/tls.pem
smtpd_tls_loglevel = 1
"""

# Debian's list without unused services, and without chroot, which would need copies of the system's files.
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup  unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 300 1 qmgr
tlsmgr  unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
flush   unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp    unix - - n - - smtp
relay   unix - - n - - smtp
showq   unix n - n - - showq
error   unix - - n - - error
retry   unix - - n - - error
anvil   unix - - n - 1 anvil
scache  unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running Postfix. `certificate` is the one to trust for STARTTLS, or None if STARTTLS is not offered."""

    port: int
    home: Path
    certificate: Path | None

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}" + (f"?tls=starttls&ca={self.certificate}" if self.certificate else "")

    @property
    def plain_url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?tls=none"

    @property
    def log(self) -> Path:
        return self.home / "postfix.log"

    def queued(self) -> int:
        """Return the number of mails that are not yet relayed."""
        return sum(len(files) for queue in QUEUES for *_, files in os.walk(self.home / "queue" / queue))


@contextmanager
def private_postfix(
    onward: str, *, tls: bool = False, main: str = "", say: Callable[[str], None] = lambda _: None
) -> Iterator[Postfix]:
    """Yield a Postfix with an empty queue that relays to `onward` ("host:port"). It is removed when the block ends.

    `main` has more lines for main.cf; they may contain `{home}`. Installs Debian's package if possible. Raises
    ServiceError if Postfix cannot be installed or run.
    """
    require(say)
    [port] = free_ports(1)
    with private_home() as home:
        host, _, onward_port = onward.rpartition(":")
        configure(home, port, f"[{host}]:{onward_port}", tls=tls, main=main)
        postfix = Postfix(port, home, home / "certificate.pem" if tls else None)
        # not `postfix start-fg`: its shell would receive the signal for the master
        with running([PROGRAMS / "master", "-c", home / "etc", "-s"], log=home / "master.log") as process:
            wait_until(
                lambda: not is_free(port),
                process, name="Postfix", log=postfix.log, limit_seconds=START_LIMIT_SECONDS,
            )  # fmt: skip
            try:
                yield postfix
            finally:
                end(home)


def reload(postfix: Postfix) -> None:
    """Let new connections see changed files."""
    run("postfix", "-c", postfix.home / "etc", "reload")


def end(home: Path) -> None:
    """Kill the master and its daemons: SIGTERM takes five seconds, and the queue is deleted anyway."""
    master = int((home / "queue" / "pid" / "master.pid").read_text())
    os.killpg(master, signal.SIGKILL)


def require(say: Callable[[str], None] = lambda _: None) -> None:
    """Raise ServiceError with the reason if Postfix cannot run here."""
    if os.geteuid() != 0:
        raise ServiceError("Postfix needs root: its daemons run under their own accounts")
    install(say)


def install(say: Callable[[str], None] = lambda _: None) -> None:
    """Install Postfix's programs if they are missing. Running smtp-source and smtp-sink needs no root.

    Raises ServiceError if they cannot be installed.
    """
    if (PROGRAMS / "master").exists():
        return
    say("Postfix is not installed: apt-get install postfix (the system's own server is not started)")
    try:
        install_packages(
            "postfix", "openssl", answers="postfix postfix/main_mailer_type select No configuration", service="postfix"
        )
    except ServiceError as error:
        raise ServiceError(f"Postfix is missing: {error}") from error


@contextmanager
def private_home() -> Iterator[Path]:
    """Yield a new folder under /var/tmp.

    Postfix's accounts cannot enter a checkout under /root, and /tmp may be in memory instead of on a disk.
    """
    # the daemons end shortly after their master, and may still create a file
    with tempfile.TemporaryDirectory(prefix="coupons-postfix-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        home = Path(name)
        home.chmod(0o755)
        yield home


def configure(home: Path, port: int, onward: str, *, tls: bool, main: str) -> None:
    for folder in ("etc", "queue", "data"):
        (home / folder).mkdir(mode=0o755)
    shutil.chown(home / "data", "postfix")
    (home / "postfix.log").touch()
    (home / "etc/master.cf").write_text(MASTER.format(port=port))
    (home / "etc/main.cf").write_text((MAIN + (TLS if tls else "") + main).format(home=home, onward=onward))
    if tls:
        make_certificate(home)
    run("postfix", "-c", home / "etc", "check")  # creates the folders of the queue, each with its owner


def make_certificate(home: Path) -> None:
    """Create a self-signed certificate for 127.0.0.1."""
    key, certificate = home / "key.pem", home / "certificate.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    chain = home / "tls.pem"
    chain.touch(mode=0o600)
    chain.write_text(key.read_text() + certificate.read_text())


def run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_LIMIT_SECONDS)
    if done.returncode != 0:
        raise ServiceError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
