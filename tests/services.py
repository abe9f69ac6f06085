"""The real services of the tests. They are at given addresses, in containers, or private local programs."""

import base64
import errno
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import asyncpg

from coupons.database import connect
from coupons.store import restore_guard
from sandbox import postgres, rabbitmq
from sandbox.process import ServiceError
from sandbox.rabbitmq import Broker

KINDS = ("address", "docker", "local")
ADDRESSES = ("COUPONS_TEST_DATABASE_URL", "COUPONS_TEST_BROKER_URL")
POSTGRES_IMAGE = "postgres:17-alpine"
RABBITMQ_IMAGE = rabbitmq.IMAGE
QUEUES = ("coupons.import", "coupons.sendout", "coupons.resume", "coupons.deliver", "coupons.dead")

CONTAINER_LIMIT_SECONDS = 90
PASSWORD = secrets.token_hex(12)  # of containers; random, so that tests of secrets find it in any output
PULL_LIMIT_SECONDS = 300
EMPTY = "template1"
VIRTUAL_HOSTS_AT_ONCE = 16  # one rabbitmqctl takes 0.5 s, for one virtual host or for sixteen


def choose_kind(environment: Mapping[str, str]) -> str:
    """Return the kind in COUPONS_TEST_SERVICES (address, docker or local), else the first available kind."""
    if forced := environment.get("COUPONS_TEST_SERVICES"):
        if forced not in KINDS:
            raise ServiceError(f"COUPONS_TEST_SERVICES is {forced!r}; expected one of {', '.join(KINDS)}")
        return forced
    if all(environment.get(name) for name in ADDRESSES):
        return "address"
    if rabbitmq.docker_is_available() and has_image(POSTGRES_IMAGE) and has_image(RABBITMQ_IMAGE):
        return "docker"
    return "local"


def has_image(image: str) -> bool:
    """Return whether the Docker engine has the image or can pull it."""
    if rabbitmq.succeeds(["docker", "image", "inspect", image]):
        return True
    pull = ["docker", "pull", "--quiet", image]
    return subprocess.run(pull, check=False, capture_output=True, timeout=PULL_LIMIT_SECONDS).returncode == 0


def address(name: str) -> str:
    if url := os.environ.get(name):
        return url
    raise ServiceError(f"COUPONS_TEST_SERVICES=address needs {' and '.join(ADDRESSES)}")


@contextmanager
def session_folder(root: Path) -> Iterator[Path]:
    """Yield a folder for this process and remove it at the end. The folders of killed sessions are removed first."""
    root.mkdir(exist_ok=True)
    for old in root.glob("*"):
        if not is_alive(int(old.name)):
            remove(old)
    folder = root / str(os.getpid())
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # the process exists and belongs to another user
    return True


def remove(folder: Path) -> None:
    postgres.remove(folder / "postgres")
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_server(kind: str, folder: Path) -> Iterator[str]:
    """Yields the URL of a database whose user may create databases."""
    if kind == "address":
        yield address(ADDRESSES[0])
    elif kind == "docker":
        options = [part for item in postgres.NOT_DURABLE.items() for part in ("-c", "=".join(item))]
        settings = {
            "POSTGRES_USER": "coupons",
            "POSTGRES_PASSWORD": PASSWORD,
            "POSTGRES_DB": "coupons",
            "LANG": "C.UTF-8",
        }
        command = ["postgres", "-c", f"max_connections={postgres.MAX_CONNECTIONS}", *options]
        with container(POSTGRES_IMAGE, 5432, settings, command) as (name, host, port):
            # over TCP: the image's first server, which only initializes the database, listens on a Unix socket
            wait_for(
                POSTGRES_IMAGE, lambda: rabbitmq.succeeds(["docker", "exec", name, "pg_isready", "-h", "127.0.0.1"])
            )
            yield f"postgresql://coupons:{PASSWORD}@{host}:{port}/coupons"
    else:
        with postgres.private_postgres(folder, durable=False) as url:
            yield url


@contextmanager
def rabbitmq_server(kind: str, folder: Path, *, say: Callable[[str], None]) -> Iterator[Broker]:
    """Yields a broker; a broker at a given address has no control command."""
    if kind == "address":
        yield Broker(address(ADDRESSES[1]), control=())
    elif kind == "docker":
        settings = {"RABBITMQ_DEFAULT_USER": rabbitmq.USER, "RABBITMQ_DEFAULT_PASS": PASSWORD}
        with container(RABBITMQ_IMAGE, 5672, settings) as (name, host, port):
            wait_for(RABBITMQ_IMAGE, lambda: rabbitmq.speaks_amqp(port, host))
            url = f"amqp://{rabbitmq.USER}:{PASSWORD}@{host}:{port}/"
            yield Broker(url, control=("docker", "exec", name, "rabbitmqctl"))
    else:
        with rabbitmq.private_rabbitmq(folder, say=say) as broker:
            yield broker


@contextmanager
def container(
    image: str, port: int, environment: dict[str, str], command: list[str] | None = None
) -> Iterator[tuple[str, str, int]]:
    """Yields the id, host and mapped port of a running container."""
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    # testcontainers' reaper removes containers of killed sessions. Tests also run without its image.
    if not testcontainers_config.ryuk_disabled:
        testcontainers_config.ryuk_disabled = not has_image(testcontainers_config.ryuk_image)
    described = DockerContainer(image).with_exposed_ports(port)
    for name, value in environment.items():
        described = described.with_env(name, value)
    with described.with_command(command or []) as started:
        yield started.get_wrapped_container().id, started.get_container_host_ip(), int(started.get_exposed_port(port))


def wait_for(name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CONTAINER_LIMIT_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise ServiceError(f"the container of {name} did not answer within {CONTAINER_LIMIT_SECONDS} s")
        time.sleep(0.1)


@asynccontextmanager
async def database(server_url: str, template: str = EMPTY) -> AsyncIterator[str]:
    """Yields the URL of a new database: a copy of `template`, accepted by the restore guard.

    Drops it at the end, even if sessions are still connected.
    """
    name = f"coupons_test_{secrets.token_hex(6)}"
    await execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
    try:
        if template != EMPTY:
            async with connect(url) as connection:
                await restore_guard.accept(connection)
        yield url
    finally:
        await execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class VirtualHosts:
    """Gives each test its own virtual host. Sixteen are created at once; they are removed with their broker."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.unused: list[str] = []

    def take(self) -> str:
        """Return the URL of an unused virtual host."""
        if not self.unused:
            self.unused = [f"test-{secrets.token_hex(6)}" for _ in range(VIRTUAL_HOSTS_AT_ONCE)]
            self.add(self.unused)
        return self.broker.url.rstrip("/") + "/" + self.unused.pop()

    def add(self, names: list[str]) -> None:
        """Create virtual hosts by importing definitions.

        One call creates many virtual hosts and needs no stdin, which containers do not offer.
        """
        user = urlsplit(self.broker.url).username
        everything = {"user": user, "configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "vhosts": [{"name": name} for name in names],
            "permissions": [{"vhost": name, **everything} for name in names],
        }
        encoded = base64.b64encode(json.dumps(definitions).encode()).decode()
        answer = self.broker.rabbitmqctl("eval", f'rabbit_definitions:import_raw(base64:decode(<<"{encoded}">>)).')
        if answer.strip() != "ok":
            raise ServiceError(f"RabbitMQ did not create the virtual hosts: {answer}")


async def delete_queues(broker_url: str) -> None:
    """Delete the queues of the Coupon Manager, because a broker at a given address has only one virtual host."""
    connection = await aio_pika.connect(broker_url)
    async with connection, connection.channel() as channel:
        for queue in QUEUES:
            await channel.queue_delete(queue)
