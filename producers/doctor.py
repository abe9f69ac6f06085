"""`coupons doctor`: is everything there that the system needs, and what was rejected?"""

import json
from dataclasses import dataclass

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed

from coupons import broker, database, migrate
from coupons.errors import UserError
from coupons.settings import Settings
from coupons.smtp import Relays, SmtpAddress, Timeouts
from coupons.store import restore_guard
from coupons.store.restore_guard import State
from coupons.topology import COMMANDS, DEAD, NUDGE, REASON, queue_name

DEAD_SHOWN = 20
RELAY_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    well: bool
    says: str


async def examine(settings: Settings) -> list[Finding]:
    """Everything is looked at, whatever is wrong with the rest."""
    return [*await _database(settings), *await _broker(settings), await _relay(settings)]


async def _database(settings: Settings) -> list[Finding]:
    try:
        async with database.connected(settings.database_url.get_secret_value()) as connection:
            await migrate.check_current(connection)
            version = await connection.fetchval("SHOW server_version")
            epoch = await restore_guard.state(connection)
    except UserError as error:
        return [Finding("database", well=False, says=str(error))]
    return [Finding("database", well=True, says=f"PostgreSQL {version}, up to date"), _epoch(epoch)]


def _epoch(epoch: State) -> Finding:
    if epoch.refusal:
        return Finding("epoch", well=False, says=f"{epoch.refusal}; nothing is sent (coupons epoch show)")
    return Finding("epoch", well=True, says=f"number {epoch.number}, workers may send")


async def _broker(settings: Settings) -> list[Finding]:
    try:
        async with broker.connected(settings.broker_url.get_secret_value(), "coupons doctor") as connection:
            queues = [await _queue(await connection.channel(), key) for key in (*COMMANDS, NUDGE)]
            return [*queues, *await _dead(await connection.channel())]
    except UserError as error:
        return [Finding("broker", well=False, says=str(error))]


async def _queue(channel: AbstractChannel, key: str) -> Finding:
    """Whether somebody takes what is published."""
    name = queue_name(key)
    try:
        declared = (await channel.declare_queue(name, passive=True)).declaration_result
    except ChannelClosed:
        return Finding(name, well=False, says="does not exist: a worker declares it (coupons worker)")
    consumers, waiting = declared.consumer_count or 0, declared.message_count or 0
    if not consumers:
        return Finding(name, well=False, says=f"{waiting} waiting, and no worker that takes them (coupons worker)")
    return Finding(name, well=True, says=f"{waiting} waiting, {consumers} workers")


async def _dead(channel: AbstractChannel) -> list[Finding]:
    """The oldest rejected commands; they stay in their queue."""
    try:
        queue = await channel.declare_queue(queue_name(DEAD), passive=True)
    except ChannelClosed:
        return []
    total = queue.declaration_result.message_count or 0
    findings = []
    for _ in range(min(total, DEAD_SHOWN)):
        message = await queue.get(fail=False)  # given back when the channel closes
        if message is not None:
            reason = message.headers.get(REASON, "not processed: its delivery limit was reached")
            findings.append(Finding(f"rejected {_what(message.body)}", well=False, says=str(reason)))
    if total > DEAD_SHOWN:
        findings.append(Finding(queue.name, well=False, says=f"{total - DEAD_SHOWN} more rejected commands"))
    return findings or [Finding(queue.name, well=True, says="no rejected commands")]


def _what(body: bytes) -> str:
    """Type and id of a rejected command, as far as it has them; never its content."""
    try:
        content = json.loads(body)
        return f"{content['type']} {content['id']}"[:60]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "command"


async def _relay(settings: Settings) -> Finding:
    """Connect, negotiate TLS and authenticate, as a worker would; no mail is sent."""
    try:
        addresses = SmtpAddress.parse_all(settings.smtp_url.get_secret_value())
        unreachable = await Relays(addresses, timeouts=Timeouts(connect_seconds=RELAY_SECONDS)).check()
    except UserError as error:
        return Finding("relay", well=False, says=str(error))
    if unreachable:
        return Finding("relay", well=False, says=unreachable.explanation)
    return Finding("relay", well=True, says="; ".join(f"{each.name}, {each.tls.value} TLS" for each in addresses))
