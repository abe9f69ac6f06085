"""Private PostgreSQL, RabbitMQ and mail sink for the demo, the tests and the benchmarks; removed after use."""

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.ledger import Ledger, Mail
from sandbox.postgres import private_postgres
from sandbox.process import ServiceError, first_line, running
from sandbox.rabbitmq import private_rabbitmq

SINK_START_SECONDS = 30  # a start takes 0.1 s on two idle cores


@dataclass(frozen=True, slots=True)
class Services:
    """The URLs of the services, and the ledger of the mails that the sink has accepted."""

    database_url: str
    broker_url: str
    smtp_url: str
    ledger: Path

    def environment(self) -> dict[str, str]:
        """Return the settings that make `coupons …` use these services."""
        return {
            "COUPONS_DATABASE_URL": self.database_url,
            "COUPONS_BROKER_URL": self.broker_url,
            "COUPONS_SMTP_URL": self.smtp_url,
        }


@dataclass(frozen=True, slots=True)
class Sink:
    """A running mail sink."""

    url: str
    ledger: Path

    def mails(self) -> list[Mail]:
        return Ledger(self.ledger).mails()


@contextmanager
def private_services(
    folder: Path, *, durable: bool = True, say: Callable[[str], None] = lambda _: None
) -> Iterator[Services]:
    """Yield new, empty services and stop them when the block ends. `folder` keeps their logs and the ledger.

    With `durable=False`, PostgreSQL does not wait for the disk. `say` is called with a line about each step, from
    several threads. Raises ServiceError if a service cannot be started or another process uses `folder`.
    """
    folder = folder.absolute()
    with exclusive(folder), ExitStack() as stack:
        # The services start in parallel: RabbitMQ takes 6 to 11 s, PostgreSQL 1 s.
        with ThreadPoolExecutor() as pool:
            postgres = pool.submit(stack.enter_context, private_postgres(folder, durable=durable))
            rabbitmq = pool.submit(stack.enter_context, private_rabbitmq(folder, say=say))
            sink = stack.enter_context(private_sink(folder / "mails.jsonl"))
        yield Services(postgres.result(), rabbitmq.result().url, sink.url, sink.ledger)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(f"{folder} is in use by another process") from None
        yield


@contextmanager
def private_sink(ledger: Path, *options: str) -> Iterator[Sink]:
    """Yield a mail sink with an empty ledger. `options` are those of `python -m sandbox.mail_sink`."""
    ledger.unlink(missing_ok=True)
    log = ledger.with_suffix(".log")
    command = [sys.executable, "-m", "sandbox.mail_sink", "--ledger", str(ledger), *options]
    with running([*command], log=log, stdout=subprocess.PIPE) as process:
        port = first_line(process, name="the mail sink", log=log, limit_seconds=SINK_START_SECONDS)
        yield Sink(f"smtp://127.0.0.1:{port}", ledger)
