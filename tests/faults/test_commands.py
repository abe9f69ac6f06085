"""Commands that come again, late, in any order, to anybody, and bodies that are no commands at all."""

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
from tests.faults.lab import SECRETS, Lab, codes_of, size
from tests.waiting import eventually

COPIES = 3


@dataclass(frozen=True, slots=True)
class Raw:
    """What a program publishes that knows nothing of us: a body, with whatever properties."""

    key: str
    message: Message


def usual(key: str, body: bytes) -> Raw:
    return Raw(key, Message(body, delivery_mode=DeliveryMode.PERSISTENT, content_type="application/json"))


def publish(lab: Lab, raws: Sequence[Raw]) -> None:
    async def run() -> None:
        connection = await aio_pika.connect(lab.services.broker_url)
        async with connection, connection.channel() as channel:
            exchange = await channel.get_exchange(EXCHANGE, ensure=False)
            for raw in raws:
                await exchange.publish(raw.message, raw.key)

    asyncio.run(run())


def ready(lab: Lab, *keys: str) -> int:
    """How many messages wait in these queues."""

    async def count() -> int:
        connection = await aio_pika.connect(lab.services.broker_url)
        async with connection, connection.channel() as channel:
            queues = [await channel.declare_queue(queue_name(key), passive=True) for key in keys]
            return sum(queue.declaration_result.message_count or 0 for queue in queues)

    return asyncio.run(count())


def are_taken(lab: Lab) -> None:
    """Wait until no command waits. What a worker has not begun with waits again when the worker has ended."""
    eventually(lambda: not ready(lab, *COMMANDS), "every command to be taken")


# --- again, late, in any order -------------------------------------------------------------------------------------


def other(command: Command) -> Command:
    """Another command with the same id."""
    match command:
        case ImportCoupons():
            return command.model_copy(update={"codes": ("X",)})
        case StartSendout():
            return command.model_copy(update={"auto_resume": True})
        case ResumeSendout():
            return command.model_copy(update={"sendout": uuid4()})


def spelt_otherwise(command: Command) -> Raw:
    """The same command as another program writes it: other order, blanks, escapes, what is usual said or left out."""
    content = json.loads(command.body())
    turned = {name: content[name] for name in reversed(content)} | {"id": str(command.id).upper()}
    return usual(command.type, json.dumps(turned, indent=1, ensure_ascii=True).encode())


def answers(lab: Lab, commands: Sequence[Command]) -> list[Any]:
    """What people are told of each: its import, or its sendout."""
    shown = [command.sendout if isinstance(command, ResumeSendout) else command.id for command in commands]
    return [lab.rows("SELECT * FROM import_job WHERE id = $1", each) or sendout(lab, each) for each in shown]


def sendout(lab: Lab, id_: UUID) -> list[dict[str, Any]]:
    return lab.rows(
        "SELECT s.state, s.recipients, s.finished_at, l.* FROM sendout s JOIN sendout_list l ON l.sendout_id = s.id "
        "WHERE s.id = $1 ORDER BY list_id",
        id_,
    )


def test_commands_three_times_in_any_order(lab: Lab) -> None:
    """Every command three times, shuffled, and again after the end to other workers: one import, one sendout each.

    Replayed, a command changes nothing; the same id with other content is refused and changes nothing.
    """
    count = size(short=60, long=600)
    names = [f"again-{number}" for number in range(size(short=3, long=12))]
    for name in names:
        lab.has(name, name, [f"{name}-{each}@example.org" for each in range(count)], {name: []})
    codes = {name: codes_of(name, count + 1) for name in names}
    imports = [ImportCoupons(list=name, codes=tuple(codes[name])) for name in names]
    sendouts = [StartSendout(message=name, group=name) for name in names]
    single = Recipient(email="single@example.org", attributes={"first_name": "Ada"})
    singles = [StartSendout(message=name, recipients=(single,)) for name in names]
    commands: list[Command] = [*imports, *sendouts, *singles]
    with lab.fleet(2):
        come_shuffled(lab, commands)
        lab.wait_finished(*(each.id for each in imports))
        begun = [each.id for each in (*sendouts, *singles)]
        eventually(lambda: {*map(lab.state, begun)} <= {"finished", "interrupted"}, "the sendouts to rest")
        resumes = [ResumeSendout(sendout=each) for each in begun if lab.state(each) == "interrupted"]
        come_shuffled(lab, resumes)
        lab.wait_finished(*begun)
        are_taken(lab)
    commands += resumes
    before, told, mailed = lab.contents(), answers(lab, commands), lab.mail_count()
    rejected = len(lab.dead())
    with lab.fleet(1):
        come_shuffled(lab, commands)
        publish(lab, [spelt_otherwise(command) for command in commands])
        lab.publish(*map(other, commands))
        eventually(lambda: ready(lab, "dead") >= rejected + len(commands), "each to be refused")
    refused = lab.dead()
    assert {each.reason for each in refused[rejected:]} == {
        f"id {each.id} belongs to another command" for each in commands
    }
    assert (lab.contents(), answers(lab, commands), lab.mail_count()) == (before, told, mailed)
    assert mailed == len(names) * (count + 1)
    lab.check(
        "every command three times, reordered, replayed", rounds=len(commands) * (2 * COPIES + 2), rejected=len(refused)
    )


def come_shuffled(lab: Lab, commands: Sequence[Command]) -> None:
    copies = [*commands] * COPIES
    lab.random.shuffle(copies)
    lab.publish(*copies)


# --- poison --------------------------------------------------------------------------------------------------------

SLOPPY: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "not persistent": {"delivery_mode": DeliveryMode.NOT_PERSISTENT},
    "another type": {"content_type": "text/html", "content_encoding": "gzip", "type": "resume"},
    "one id for all": {"message_id": "1", "correlation_id": "1"},
    "strange headers": {"headers": {"x-reason": "none", "x-death": [{"count": 99}], "x-delivery-count": 10**9, "": ""}},
    "first of all": {"priority": 255, "reply_to": "coupons.dead", "app_id": poison.CODE},
}


def good(number: int, properties: dict[str, Any]) -> Raw:
    """An import of a code that nobody else brings."""
    command = ImportCoupons(list=poison.LIST, codes=(f"GOOD-{number:07}",))
    return Raw("import", Message(command.body(), **properties))


def test_poison(lab: Lab) -> None:
    """Each body that is no command is in the dead queue with its reason, whatever it is; workers live on.

    Commands between them are carried out, however sloppily they were published. No log and no reason repeats a value.
    """
    bodies = poison.all_()
    lab.has(poison.LIST, poison.LIST, ["nobody@example.org"], {poison.LIST: []})
    goods = [good(number, properties) for number, properties in enumerate(SLOPPY.values())]
    bad = [usual(each.key, each.body) for each in bodies] * size(short=1, long=20)
    raws = [*bad, *goods]
    lab.random.shuffle(raws)
    with lab.fleet(2) as fleet:
        publish(lab, raws)
        eventually(lambda: lab.list_named(poison.LIST).total == len(goods), "the good ones to be carried out")
        eventually(lambda: ready(lab, "dead") >= len(bad), "the others to be refused")
        assert not any(worker.is_dead for worker in fleet.workers)
    reasons = {each.body: each.reason for each in lab.dead()}
    assert [each.name for each in bodies if each.body not in reasons] == []
    assert [each.name for each in bodies if each.reason not in reasons[each.body]] == []
    assert [reason for reason in reasons.values() if SECRETS.search(reason) or "\n" in reason] == []
    assert lab.rows("SELECT FROM sendout") == []
    assert lab.list_named(poison.LIST).total == len(goods)
    lab.check("poison bodies", rounds=len(bad), rejected=len(bad))
