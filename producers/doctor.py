"""`coupons doctor`: checks the services that the system needs, and shows the rejected commands."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelClosed

from coupons import broker, database, migrate
from coupons.commands import type_of
from coupons.errors import UserError
from coupons.settings import Settings
from coupons.smtp import Relays, SmtpAddress, Timeouts
from coupons.store import heartbeats, import_schedules, restore_guard
from coupons.store.heartbeats import Worker
from coupons.store.import_schedules import ImportSchedule
from coupons.store.restore_guard import State
from coupons.topology import COMMANDS, DEAD, NUDGE, REASON, queue_name
from producers.durations import format_duration
from producers.local_time import format_time

DEAD_SHOWN = 20
RELAY_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    detail: str


async def examine(settings: Settings) -> list[Check]:
    """Run all checks, even if some of them fail."""
    return [*_activation(settings), *await _database(settings), *await _broker(settings), await _relay(settings)]


def _activation(settings: Settings) -> list[Check]:
    """Return a remark if coupon commands are refused. It is a choice, so the check does not fail."""
    detail = "the Coupon Manager is not activated: coupon commands are refused (COUPONS_ACTIVATED)"
    return [] if settings.activated else [Check("activation", ok=True, detail=detail)]


async def _database(settings: Settings) -> list[Check]:
    try:
        async with database.connect(settings.database_url.get_secret_value()) as connection:
            await migrate.check_current(connection)
            version = await connection.fetchval("SHOW server_version")
            guard = await restore_guard.state(connection)
            workers = await heartbeats.list_workers(connection)
            schedules = await import_schedules.list_all(connection)
    except UserError as error:
        return [Check("database", ok=False, detail=str(error))]
    return [
        Check("database", ok=True, detail=f"PostgreSQL {version}, up to date"),
        _restore_guard(guard),
        *_workers(workers),
        *_schedules(schedules),
    ]


def _schedules(schedules: list[ImportSchedule]) -> list[Check]:
    """Return a check for each recurring import, which fails if its last run has failed or no worker runs it."""
    return [
        Check(
            f"recurring import {each.name}",
            ok=each.failure is None and not each.overdue,
            detail="; ".join(_describe_schedule(each)),
        )
        for each in schedules
    ]


def _describe_schedule(schedule: ImportSchedule) -> Iterator[str]:
    if schedule.paused_at:
        yield f"paused since {format_time(schedule.paused_at)}"
    if schedule.overdue and (due_at := schedule.run_at or schedule.next_at):
        yield f"due since {format_time(due_at)}: no worker with the role import knows the time zone {schedule.zone}"
    yield f"last run {schedule.last_run.result}" if schedule.last_run else "no runs yet"


def _workers(workers: list[Worker]) -> list[Check]:
    """Return a check for each live worker, and a failed one if a role has none. It names the dead workers."""
    alive = [Check(f"worker {each.name}", ok=True, detail=_describe(each)) for each in workers if each.is_alive]
    dead = "".join(
        f"; worker {each.name} has shown no life for {format_duration(each.silent_seconds)}"
        for each in workers
        if not each.is_alive
    )
    if uncovered := heartbeats.uncovered_roles(workers):
        return [*alive, Check("workers", ok=False, detail=f"{heartbeats.describe_uncovered(uncovered)}{dead}")]
    return [*alive, Check("workers", ok=True, detail=f"{_counted(len(alive), 'worker')}, all roles{dead}")]


def _describe(worker: Worker) -> str:
    seen = format_duration(worker.silent_seconds)
    since = format_time(worker.since)
    return f"{', '.join(worker.roles)}; version {worker.version}, since {since}, last seen {seen} ago"


def _restore_guard(guard: State) -> Check:
    if guard.refusal:
        return Check("restore guard", ok=False, detail=f"{guard.refusal}; nothing is sent (coupons restore-guard show)")
    return Check("restore guard", ok=True, detail="accepted, workers may send")


async def _broker(settings: Settings) -> list[Check]:
    try:
        async with broker.connect(settings.broker_url.get_secret_value(), "coupons doctor") as connection:
            queues = [await _queue(await connection.channel(), key) for key in (*COMMANDS, NUDGE)]
            return [*queues, *await _dead(await connection.channel())]
    except UserError as error:
        return [Check("broker", ok=False, detail=str(error))]


async def _queue(channel: AbstractChannel, key: str) -> Check:
    """Check that a worker consumes the queue."""
    name = queue_name(key)
    try:
        declared = (await channel.declare_queue(name, passive=True)).declaration_result
    except ChannelClosed:
        return Check(name, ok=False, detail="does not exist: start a worker, which declares it (coupons worker)")
    consumers, messages = declared.consumer_count or 0, _counted(declared.message_count or 0, "message")
    if not consumers:
        return Check(name, ok=False, detail=f"{messages}, no consumer: start a worker (coupons worker)")
    return Check(name, ok=True, detail=f"{messages}, {_counted(consumers, 'consumer')}")


async def _dead(channel: AbstractChannel) -> list[Check]:
    """Return a failed check for each of the oldest rejected commands, which stay in their queue."""
    try:
        queue = await channel.declare_queue(queue_name(DEAD), passive=True)
    except ChannelClosed:
        return []
    total = queue.declaration_result.message_count or 0
    checks = []
    for _ in range(min(total, DEAD_SHOWN)):
        message = await queue.get(fail=False)  # requeued when the channel closes
        if message is not None:
            reason = message.headers.get(REASON, "not processed: the queue's delivery limit was reached")
            checks.append(Check(f"rejected {_type_and_id(message.body)}", ok=False, detail=str(reason)))
    if total > DEAD_SHOWN:
        checks.append(Check(queue.name, ok=False, detail=f"{total - DEAD_SHOWN} more rejected commands"))
    return checks or [Check(queue.name, ok=True, detail="no rejected commands")]


def _type_and_id(body: bytes) -> str:
    """Return type and id of a rejected command, if they are valid. Anything else in it may be a code or an address."""
    try:
        content = json.loads(body)
        kind = content["type"] if content["type"] in type_of else "command"
        return f"{kind} {UUID(content['id'])}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "command"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


async def _relay(settings: Settings) -> Check:
    """Connect to the relays, negotiate TLS and authenticate, as a worker would. No mail is sent."""
    try:
        addresses = SmtpAddress.parse_all(settings.smtp_url.get_secret_value())
        unreachable = await Relays(addresses, timeouts=Timeouts(connect_seconds=RELAY_SECONDS)).check()
    except UserError as error:
        return Check("relay", ok=False, detail=str(error))
    if unreachable:
        return Check("relay", ok=False, detail=unreachable)
    return Check("relay", ok=True, detail="; ".join(f"{each.name}, {each.tls.value} TLS" for each in addresses))
