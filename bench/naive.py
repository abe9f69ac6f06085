"""A baseline: a pipeline with one job per recipient.

Each recipient needs an AMQP message, a code locked with SKIP LOCKED, an `EmailMessage`, an SMTP transaction and an ack.
The baseline is fair: connections stay open, CONSUMERS recipients are processed concurrently, publisher confirms are
awaited in batches, and the consumer runs on uvloop. `python -m bench.naive BROKER DATABASE HOST:PORT MAILS` consumes
MAILS jobs.
"""

import asyncio
import json
import sys
import time
from email.message import EmailMessage
from email.utils import formatdate

import aio_pika
import asyncpg
import uvloop
from aio_pika.abc import AbstractIncomingMessage
from aiosmtplib import SMTP

from bench.rig import SENDER, SENDOUT, compiled_message, run_program
from coupons.mail import message_id
from coupons.templates.rendering import Coupon, Template
from sandbox.services import Services
from tests.clusters import with_database

QUEUE = "naive"
CONSUMERS = 10  # the number of connections, equal to ours, and the prefetch count
CONFIRMS_PER_BATCH = 500

SCHEMA = """
DROP TABLE IF EXISTS coupon;
CREATE TABLE coupon (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, owner text);
CREATE INDEX coupon_free ON coupon (id) WHERE owner IS NULL;
"""
STOCK = "INSERT INTO coupon (code) SELECT 'NAIVE-' || lpad(n::text, 9, '0') FROM generate_series(1, $1::int) AS n"
TAKE = """
UPDATE coupon SET owner = $1
 WHERE id = (SELECT id FROM coupon WHERE owner IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING code
"""


async def naive(services: Services, address: str, mails: int) -> float:
    """Mails/s from the first publish to the last ack; the consumer runs in its own process."""
    database_url = with_database(services.database_url, "naive")
    await stock(services.database_url, database_url, mails)
    begun = time.perf_counter()
    arguments = (services.broker_url, database_url, address, str(mails))
    consumer = asyncio.create_task(run_program(sys.executable, "-m", "bench.naive", *arguments))
    await publish(services.broker_url, mails)
    ended = float(await consumer)
    return mails / (ended - begun)


async def stock(server_url: str, database_url: str, codes: int) -> None:
    server = await asyncpg.connect(server_url)
    if not await server.fetchval("SELECT 1 FROM pg_database WHERE datname = 'naive'"):
        await server.execute("CREATE DATABASE naive")
    await server.close()
    connection = await asyncpg.connect(database_url)
    await connection.execute(SCHEMA)
    await connection.execute(STOCK, codes)
    await connection.execute("VACUUM ANALYZE coupon")
    await connection.close()


async def publish(broker_url: str, mails: int) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        for begin in range(0, mails, CONFIRMS_PER_BATCH):
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(job(number), routing_key=QUEUE)
                    for number in range(begin, min(begin + CONFIRMS_PER_BATCH, mails))
                )
            )


def job(number: int) -> aio_pika.Message:
    body = {"number": number, "email": f"c{number}@example.org", "first_name": f"Zoë {number}"}
    return aio_pika.Message(json.dumps(body).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)


async def consume(broker_url: str, database_url: str, address: str, mails: int) -> float:
    """Consume all messages; return the time of the last ack by the monotonic clock, which all processes share."""
    host, _, port = address.rpartition(":")
    template = compiled_message().template
    pool = await asyncpg.create_pool(database_url, min_size=CONSUMERS, max_size=CONSUMERS)
    jobs: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    left = iter(range(mails))

    async def send_mails() -> None:
        async with SMTP(hostname=host, port=int(port), use_tls=False, start_tls=False) as smtp:
            for _ in left:
                incoming = await jobs.get()
                recipient = json.loads(incoming.body)
                code = await pool.fetchval(TAKE, recipient["email"])
                await smtp.send_message(email(template, recipient, code))
                await incoming.ack()

    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await channel.set_qos(prefetch_count=CONSUMERS)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.consume(jobs.put)
        await asyncio.gather(*(send_mails() for _ in range(CONSUMERS)))
        return time.perf_counter()


def email(template: Template, recipient: dict[str, str], code: str) -> EmailMessage:
    attributes = {"first_name": recipient["first_name"]}
    parts = template.render(attributes, {"bench": Coupon(code, is_code=True)})
    email = EmailMessage()
    email["From"] = SENDER
    email["To"] = recipient["email"]
    email["Subject"] = parts.subject
    email["Date"] = formatdate()
    email["Message-ID"] = message_id(SENDOUT, int(recipient["number"]), "example.org")
    email.set_content(parts.text or "")
    email.add_alternative(parts.html or "", subtype="html")
    return email


if __name__ == "__main__":
    _, broker, database, smtp_address, count = sys.argv
    print(uvloop.run(consume(broker, database, smtp_address, int(count))))
