"""Commands that are repeated, late, reordered or redelivered to other workers, and bodies that are not commands."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import aio_pika
from aio_pika import DeliveryMode, Message

from coupons.commands import Command, ImportCoupons, Recipient, ResumeSendout, StartSendout
from coupons.topology import COMMANDS, EXCHANGE, queue_name
from tests.faults import poison
from tests.faults.lab import Lab, codes_of, size
from tests.leaks import leaks
from tests.waiting import eventually

COPIES = 3


@dataclass(frozen=True, slots=True)
class Raw:
    """A message with an arbitrary body and properties, as any AMQP client can publish it, and its routing key."""

    key: str
    message: Message


def persistent_json(key: str, body: bytes) -> Raw:
    return Raw(key, Message(body, delivery_mode=DeliveryMode.PERSISTENT, content_type="application/json"))


def publish(lab: Lab, raws: Sequence[Raw]) -> None:
    async def run() -> None:
        connection = await aio_pika.connect(lab.services.broker_url)
        async with connection, connection.channel() as channel:
            exchange = await channel.get_exchange(EXCHANGE, ensure=False)
            for raw in raws:
                await exchange.publish(raw.message, raw.key)

    asyncio.run(run())


def count_ready(lab: Lab, *keys: str) -> int:
    """The number of messages that are ready in these queues."""

    async def count() -> int:
        connection = await aio_pika.connect(lab.services.broker_url)
        async with connection, connection.channel() as channel:
            queues = [await channel.declare_queue(queue_name(key), passive=True) for key in keys]
            return sum(queue.declaration_result.message_count or 0 for queue in queues)

    return asyncio.run(count())


def wait_until_consumed(lab: Lab) -> None:
    """Wait until no command is in a queue. RabbitMQ requeues unacknowledged commands when a worker ends."""
    eventually(lambda: not count_ready(lab, *COMMANDS), "every command to be consumed")


# --- repeated, late, in any order ----------------------------------------------------------------------------------


def conflicting(command: Command) -> Command:
    """A different command with the same id."""
    match command:
        case ImportCoupons():
            return command.model_copy(update={"codes": ("X",)})
        case StartSendout():
            return command.model_copy(update={"auto_resume": True})
        case ResumeSendout():
            return command.model_copy(update={"sendout": uuid4()})


def reserialized(command: Command) -> Raw:
    """The same command as different JSON: reversed fields, indentation, escapes, the id in capitals."""
    content = json.loads(command.body())
    turned = {name: content[name] for name in reversed(content)} | {"id": str(command.id).upper()}
    return persistent_json(command.type, json.dumps(turned, indent=1, ensure_ascii=True).encode())


def answers(lab: Lab, commands: Sequence[Command]) -> list[Any]:
    """The rows of the import or the sendout of each command."""
    shown = [command.sendout if isinstance(command, ResumeSendout) else command.id for command in commands]
    return [lab.rows("SELECT * FROM import_job WHERE id = $1", each) or sendout(lab, each) for each in shown]


def sendout(lab: Lab, id_: UUID) -> list[dict[str, Any]]:
    return lab.rows(
        "SELECT s.state, s.recipients, s.finished_at, l.* FROM sendout s JOIN sendout_list l ON l.sendout_id = s.id "
        "WHERE s.id = $1 ORDER BY list_id",
        id_,
    )


def test_repeated_and_reordered_commands_count_once(lab: Lab) -> None:
    """Each command is executed once, although it is published three times, shuffled, and later replayed to new workers.

    Sendouts that name their import in `after` are sent without a resume, however early they arrive.
    A replayed command changes nothing. A command that reuses an id with other content is rejected and changes nothing.
    """
    count = size(short=60, long=600)
    names = [f"again-{number}" for number in range(size(short=3, long=12))]
    for name in names:
        lab.has(name, name, [f"{name}-{each}@example.org" for each in range(count)], {name: []})
    codes = {name: codes_of(name, count + 1) for name in names}
    imports = [ImportCoupons(list=name, codes=tuple(codes[name])) for name in names]
    sendouts = [
        StartSendout(message=each.list, group=each.list, after=(each.id,) if number % 2 else ())
        for number, each in enumerate(imports)
    ]
    single = Recipient(email="single@example.org", attributes={"first_name": "Ada"})
    singles = [StartSendout(message=name, recipients=(single,)) for name in names]
    commands: list[Command] = [*imports, *sendouts, *singles]
    with lab.fleet(2):
        publish_shuffled(lab, commands)
        lab.wait_finished(*(each.id for each in imports))
        begun = [each.id for each in (*sendouts, *singles)]
        eventually(lambda: {*map(lab.state, begun)} <= {"finished", "interrupted"}, "the sendouts to rest")
        assert {lab.state(each.id) for each in sendouts if each.after} == {"finished"}
        resumes = [ResumeSendout(sendout=each) for each in begun if lab.state(each) == "interrupted"]
        publish_shuffled(lab, resumes)
        lab.wait_finished(*begun)
        wait_until_consumed(lab)
    commands += resumes
    before, answers_before, mailed = lab.contents(), answers(lab, commands), lab.mail_count()
    rejected = len(lab.dead())
    with lab.fleet(1):
        publish_shuffled(lab, commands)
        publish(lab, [reserialized(command) for command in commands])
        lab.publish(*map(conflicting, commands))
        eventually(lambda: count_ready(lab, "dead") >= rejected + len(commands), "all conflicts to be rejected")
    dead = lab.dead()
    assert {each.reason for each in dead[rejected:]} == {
        f"id {each.id} belongs to another command" for each in commands
    }
    assert (lab.contents(), answers(lab, commands), lab.mail_count()) == (before, answers_before, mailed)
    assert mailed == len(names) * (count + 1)
    lab.check(
        "every command three times, shuffled, replayed", rounds=len(commands) * (2 * COPIES + 2), rejected=len(dead)
    )


def publish_shuffled(lab: Lab, commands: Sequence[Command]) -> None:
    copies = [*commands] * COPIES
    lab.random.shuffle(copies)
    lab.publish(*copies)


# --- invalid commands ----------------------------------------------------------------------------------------------

UNUSUAL_PROPERTIES: dict[str, dict[str, Any]] = {
    "none": {},
    "not persistent": {"delivery_mode": DeliveryMode.NOT_PERSISTENT},
    "wrong type": {"content_type": "text/html", "content_encoding": "gzip", "type": "resume"},
    "one id for all": {"message_id": "1", "correlation_id": "1"},
    "odd headers": {"headers": {"x-reason": "none", "x-death": [{"count": 99}], "x-delivery-count": 10**9, "": ""}},
    "high priority": {"priority": 255, "reply_to": "coupons.dead", "app_id": poison.CODE},
}


def valid_import(number: int, properties: dict[str, Any]) -> Raw:
    """An import of a code that no other command imports."""
    command = ImportCoupons(list=poison.LIST, codes=(f"GOOD-{number:07}",))
    return Raw("import", Message(command.body(), **properties))


def test_invalid_commands_are_dead_lettered(lab: Lab) -> None:
    """Every invalid command reaches the dead queue with its reason, and no worker dies because of it.

    Valid commands between them are executed, whatever their properties. No log and no reason contains a value of a
    command.
    """
    bodies = poison.all_()
    lab.has(poison.LIST, poison.LIST, ["nobody@example.org"], {poison.LIST: []})
    valid = [valid_import(number, properties) for number, properties in enumerate(UNUSUAL_PROPERTIES.values())]
    invalid = [persistent_json(each.key, each.body) for each in bodies] * size(short=1, long=20)
    raws = [*invalid, *valid]
    lab.random.shuffle(raws)
    with lab.fleet(2) as fleet:
        publish(lab, raws)
        eventually(lambda: lab.get_list(poison.LIST).total == len(valid), "the valid commands to be executed")
        eventually(lambda: count_ready(lab, "dead") >= len(invalid), "the invalid commands to be rejected")
        assert not any(worker.is_dead for worker in fleet.workers)
    reasons = {each.body: each.reason for each in lab.dead()}
    assert [each.name for each in bodies if each.body not in reasons] == []
    assert [each.name for each in bodies if each.reason not in reasons[each.body]] == []
    assert [reason for reason in reasons.values() if leaks(reason) or "\n" in reason] == []
    assert lab.rows("SELECT FROM sendout") == []
    assert lab.get_list(poison.LIST).total == len(valid)
    lab.check("invalid commands", rounds=len(invalid), rejected=len(invalid))
