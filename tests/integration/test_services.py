"""Each test has its own services."""

import smtplib
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import asyncpg
import pytest

from sandbox.process import is_free
from sandbox.services import Services, Sink
from tests.waiting import eventually


@pytest.mark.parametrize("guest", ["first", "second"])
async def test_each_test_has_an_empty_database(database_url: str, guest: str) -> None:
    """A table that one test creates does not exist in the next test. Both databases are migrated."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE TABLE guest (name text PRIMARY KEY)")
        await connection.execute("INSERT INTO guest VALUES ($1)", guest)
        assert await connection.fetchval("SELECT count(*) FROM guest") == 1
        assert await connection.fetchval("SELECT count(*) FROM schema_migration") > 0
    finally:
        await connection.close()


@pytest.mark.parametrize("guest", ["first", "second"])
async def test_each_test_has_an_empty_virtual_host(broker_url: str, guest: str) -> None:
    """A message that one test leaves in a quorum queue does not exist in the next test."""
    connection = await aio_pika.connect(broker_url)
    async with connection, connection.channel(on_return_raises=True) as channel:
        queue = await channel.declare_queue("coupons.import", durable=True, arguments={"x-queue-type": "quorum"})
        assert queue.declaration_result.message_count == 0
        await channel.default_exchange.publish(aio_pika.Message(guest.encode()), queue.name)
        message = await queue.get()
        assert message.body == guest.encode()
        await message.reject(requeue=True)


def test_the_sink_has_recorded_a_mail_before_it_replies(sink: Sink) -> None:
    """A process that reads the ledger after the reply to the final dot finds the mail in it."""
    address = urlsplit(sink.url)
    with smtplib.SMTP(address.hostname or "", address.port or 0) as client:
        client.sendmail("shop@example.org", ["ada@example.org"], "Subject: Hello\r\n\r\n.your code: A1\r\n")
        [mail] = sink.mails()
    assert (mail.mail_from, mail.rcpt_to) == ("shop@example.org", ("ada@example.org",))
    assert (mail.email["Subject"], mail.text) == ("Hello", ".your code: A1\n")


async def test_services_and_the_single_fixtures_are_the_same(
    services: Services, sink: Sink, database_url: str, broker_url: str
) -> None:
    """A test that passes services to a program can inspect the same services through its fixtures."""
    assert services.environment() == {
        "COUPONS_DATABASE_URL": database_url,
        "COUPONS_BROKER_URL": broker_url,
        "COUPONS_SMTP_URL": sink.url,
    }


def test_services_end_with_a_killed_program(tmp_path: Path) -> None:
    """SIGKILL leaves a program no time for a cleanup, but the sink that it started still ends."""
    program = "import sys; from pathlib import Path; from sandbox.services import private_sink\n"
    program += "with private_sink(Path(sys.argv[1])) as sink: print(sink.url, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path / "mails.jsonl")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        port = urlsplit(process.stdout.readline().decode().strip()).port or 0
        assert not is_free(port)
        process.kill()
    eventually(lambda: is_free(port), "the sink to end")
