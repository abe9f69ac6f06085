"""A private RabbitMQ broker: a separate node from the system's package, or a container."""

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.packages import can_install, install_packages
from sandbox.process import ServiceError, free_ports, is_free, running, wait_until

START_LIMIT_SECONDS = 90  # a start takes 6 to 11 s on two idle cores
COMMAND_LIMIT_SECONDS = 60
PULL_LIMIT_SECONDS = 600
CONNECT_LIMIT_SECONDS = 2

IMAGE = "rabbitmq:4-management"
USER = "coupons"

# /usr/sbin is not in this list, because its scripts switch to the user of the system's broker.
INSTALLATIONS = (
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
)

# The signal that ends `docker run` may not reach the container (a shell as its first process ignores it).
CONTAINER = """
trap 'docker rm --force --volumes "$0"' TERM
docker run --rm --name "$0" "$@" &
wait
"""

MISSING = """RabbitMQ not found. It cannot be installed automatically, and no Docker engine is available. Options:
  Debian, Ubuntu:  sudo apt-get install rabbitmq-server
  macOS:           brew install rabbitmq
  anywhere:        start Docker"""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker: its URL, and the command and environment for its `rabbitmqctl`."""

    url: str
    control: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def rabbitmqctl(self, *arguments: str) -> str:
        """Return the output of `rabbitmqctl …`, which takes 0.5 s to start Erlang. Raises ServiceError if it fails."""
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*self.control, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_SECONDS,
            env=os.environ | self.environment,
        )
        if done.returncode != 0:
            raise ServiceError(f"rabbitmqctl {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


@contextmanager
def private_rabbitmq(folder: Path, *, say: Callable[[str], None]) -> Iterator[Broker]:
    """Yield a new broker without queues; it is removed when the block ends. `folder` keeps only the log."""
    if programs := find_programs() or install(say):
        with private_node(programs, folder) as broker:
            yield broker
    elif docker_is_available():
        say(f"RabbitMQ is not installed: starting a container of {IMAGE}")
        with private_container(folder) as broker:
            yield broker
    else:
        raise ServiceError(MISSING)


def find_programs() -> Path | None:
    """Return the folder of `rabbitmq-server` and `rabbitmqctl`, or None if they are not installed."""
    found = [programs for pattern in INSTALLATIONS for programs in sorted(Path("/").glob(pattern.lstrip("/")))]
    return found[-1] if found else None


def install(say: Callable[[str], None]) -> Path | None:
    """Install Debian's package if that is possible without a password; return the folder of its programs, or None."""
    if not can_install():
        return None
    say("RabbitMQ is not installed: running apt-get install rabbitmq-server (the system broker is not started)")
    try:
        install_packages("rabbitmq-server", service="rabbitmq-server")
    except ServiceError as error:
        say(str(error))
    return find_programs()


def docker_is_available() -> bool:
    return succeeds(["docker", "version"])


def succeeds(command: list[str]) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run(command, check=False, capture_output=True, timeout=COMMAND_LIMIT_SECONDS).returncode == 0  # noqa: S603 - fixed commands


@contextmanager
def private_node(programs: Path, folder: Path) -> Iterator[Broker]:
    """Run a node with its own name, ports, cookie, data and port mapper, so that many can run at the same time."""
    home = folder / "rabbitmq"
    shutil.rmtree(home, ignore_errors=True)  # a killed run may have left it
    home.mkdir(mode=0o700)  # this HOME contains the cookie, which gives access to the node
    password, log = secrets.token_hex(12), folder / "rabbitmq.log"
    port, distribution_port, mapper_port = free_ports(3)
    write_configuration(home, port, password)
    environment = node_environment(home, port, distribution_port, mapper_port)
    try:
        mapper: list[str | Path] = ["epmd", "-address", "127.0.0.1", "-port", str(mapper_port)]
        with running(mapper, log=log) as epmd:  # a mapper that Erlang starts itself would keep running
            wait_for(lambda: not is_free(mapper_port), epmd, log)
            with running([programs / "rabbitmq-server"], log=log, environment=environment) as node:
                wait_for(lambda: speaks_amqp(port), node, log)
                yield Broker(broker_url(port, password), (str(programs / "rabbitmqctl"),), environment)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def write_configuration(home: Path, port: int, password: str) -> None:
    lines = [
        f"listeners.tcp.1 = 127.0.0.1:{port}",
        f"default_user = {USER}",
        f"default_pass = {password}",
        "log.console.level = warning",
    ]
    (home / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
    (home / "plugins").write_text("[].\n")


def node_environment(home: Path, port: int, distribution_port: int, mapper_port: int) -> dict[str, str]:
    """Return settings that nodes on one machine would otherwise share (rabbitmq.com/docs/configure)."""
    return {
        "HOME": str(home),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_NODENAME": f"coupons-{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(home / "conf.d"),  # this and the next two replace /etc/rabbitmq
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_LOGS": "-",  # to stdout: one log instead of three
        "RABBITMQ_PID_FILE": str(home / "pid"),
    }


@contextmanager
def private_container(folder: Path) -> Iterator[Broker]:
    name, password, log = f"coupons-{secrets.token_hex(6)}", secrets.token_hex(12), folder / "rabbitmq.log"
    [port] = free_ports(1)
    login = ["--env", f"RABBITMQ_DEFAULT_USER={USER}", "--env", f"RABBITMQ_DEFAULT_PASS={password}"]
    with running(
        ["/bin/sh", "-c", CONTAINER, name, "--publish", f"127.0.0.1:{port}:5672", *login, IMAGE], log=log
    ) as process:
        wait_for(
            lambda: speaks_amqp(port), process, log, limit_seconds=PULL_LIMIT_SECONDS
        )  # includes pulling the image
        yield Broker(broker_url(port, password), ("docker", "exec", name, "rabbitmqctl"))


def broker_url(port: int, password: str) -> str:
    return f"amqp://{USER}:{password}@127.0.0.1:{port}/"


def wait_for(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, limit_seconds: float = START_LIMIT_SECONDS
) -> None:
    wait_until(ready, process, name="RabbitMQ", log=log, limit_seconds=limit_seconds)


def speaks_amqp(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a broker sends its greeting. RabbitMQ listens only after its users and virtual hosts exist.

    An accepted connection is not enough, because Docker's proxy accepts before the broker listens. The greeting is a
    method frame on channel 0 (AMQP 0-9-1, sections 2.2.4 and 4.2.3).
    """
    try:
        with socket.create_connection((host, port), CONNECT_LIMIT_SECONDS) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(3) == b"\x01\x00\x00"
    except OSError:
        return False
