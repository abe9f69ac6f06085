"""Histories in which each of the model's newer rules would be broken by one mistake in the program.

`make mutants` makes these mistakes. test_model.py checks the same rules in histories that Hypothesis generates.
"""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from coupons.commands import ImportCoupons, Recipient, ResumeSendout, StartSendout
from coupons.states import ImportMode, Shortage
from tests.faults.model import Model
from tests.faults.model_codes import SPELLINGS, codes
from tests.faults.model_messages import Message, People
from tests.faults.model_network import REFUSALS
from tests.faults.model_oracle import CASE_SENSITIVE

GROUP = "all"
PEOPLE = {f"p{number}@example.org": "gold" if number < 3 else "basic" for number in range(8)}


@pytest.fixture
async def model(model_url: str, quick_retries: None) -> AsyncIterator[Model]:
    """A model with two lists without codes."""
    async with Model.open(model_url) as model:
        await model.create_list("a", Shortage.PAUSE)
        await model.create_list("b", Shortage.PAUSE)
        yield model


async def accept_import(model: Model, command: ImportCoupons) -> UUID:
    """Let a worker accept an import, which is not finished yet."""
    await model.receive(command, model.workers[0])
    return command.id


async def accept_codes(model: Model, name: str, *numbers: int, spelling: str = "composed") -> UUID:
    command = ImportCoupons(id=model.new_id(), list=name, codes=codes(numbers, spelling))
    return await accept_import(model, command)


async def accept_group(model: Model, people: People, mode: ImportMode = ImportMode.ADD) -> UUID:
    source = await model.upload(people)
    return await accept_import(
        model, ImportCoupons(id=model.new_id(), group=GROUP, mode=mode, source=source, confirmed=True, allow_empty=True)
    )


async def start(model: Model, message: Message, *, to: People | None = None, after: tuple[UUID, ...] = ()) -> UUID:
    await model.save_message(message)
    recipients = tuple(Recipient(email=each, attributes={"tier": tier}) for each, tier in (to or {}).items())
    command = StartSendout(
        id=model.new_id(), message=message.name, group=None if to else GROUP, recipients=recipients or None, after=after
    )
    await model.receive(command, model.workers[1])
    return command.id


async def prepare_too_early(model: Model) -> None:
    """Let the other worker prepare, resume and send whatever it finds, although imports are unfinished."""
    for role in (model.workers[1].preparer, model.workers[1].sweeper, model.workers[1].deliverer):
        await model.run(model.workers[1], role.step())
        await model.check()


async def count_mails(model: Model) -> int:
    await model.finish_all()
    return len(model.network.ledger)


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        *(("b", spelling) for spelling in sorted(SPELLINGS)),
        ("a", "decomposed lower case"),
        *((CASE_SENSITIVE, spelling) for spelling in ("decomposed", "lower case")),
    ],
)
async def test_no_spelling_of_a_code_reaches_a_second_recipient(model: Model, name: str, spelling: str) -> None:
    """Two lists, or one list twice, get the same codes. A second sendout lacks them.

    Only a case-sensitive list has them again, if their case differs.
    """
    first = CASE_SENSITIVE if name == CASE_SENSITIVE else "a"
    await model.create_list(CASE_SENSITIVE, Shortage.PAUSE)
    await accept_codes(model, first, *range(8))
    await accept_codes(model, name, *range(8), spelling=spelling)
    await model.run_all(model.workers[0])
    await start(model, Message((first,)), to=PEOPLE)
    second = await start(model, Message((name,)), to={f"other-{each}": tier for each, tier in PEOPLE.items()})
    await model.run_all(model.workers[0])
    await model.check()
    differ = name == CASE_SENSITIVE and "lower" in spelling
    assert (second, "finished" if differ else "interrupted") in await model.states()
    assert await count_mails(model) == 2 * len(PEOPLE)


async def test_a_sendout_waits_for_an_import_into_its_group(model: Model) -> None:
    """The sendout mails the new audience and none of the old one."""
    await accept_group(model, PEOPLE)
    await accept_codes(model, "a", *range(20))
    await model.run_all(model.workers[0])
    await accept_group(model, {"new@example.org": "gold"}, ImportMode.REPLACE)
    await start(model, Message(("a",)))
    await prepare_too_early(model)
    assert await count_mails(model) == 1


async def test_a_sendout_waits_for_an_import_into_its_list(model: Model) -> None:
    """A sendout with inline recipients waits too, although its deliveries exist from the start."""
    await accept_codes(model, "a", *range(20))
    await start(model, Message(("a",)), to=PEOPLE)
    await prepare_too_early(model)
    assert await count_mails(model) == len(PEOPLE)


async def test_a_sendout_waits_for_an_import_that_has_not_arrived(model: Model) -> None:
    """The import named in `after` is still in its queue."""
    await accept_group(model, PEOPLE)
    await accept_codes(model, "a", *range(20))
    await model.run_all(model.workers[0])
    source = await model.upload({"late@example.org": "basic"})
    late = ImportCoupons(id=model.new_id(), group=GROUP, source=source)
    model.publish(late)
    await start(model, Message(("a",)), after=(late.id,))
    await prepare_too_early(model)
    assert await count_mails(model) == len(PEOPLE) + 1


async def test_a_resume_waits_for_an_import(model: Model) -> None:
    """The lists have enough codes again, but another import into one of them was accepted before the resume."""
    await accept_group(model, PEOPLE)
    await model.run_all(model.workers[0])
    sendout = await start(model, Message(("a",)))
    await model.run_all(model.workers[0])
    await accept_codes(model, "a", *range(8))
    await model.run_all(model.workers[0])
    await accept_codes(model, "a", *range(8, 10))
    await model.receive(ResumeSendout(id=model.new_id(), sendout=sendout), model.workers[1])
    await prepare_too_early(model)
    assert await count_mails(model) == len(PEOPLE)


async def test_recipients_need_the_lists_that_their_mails_print(model: Model) -> None:
    """Three gold recipients take codes of one list, five others take codes of the other list."""
    await accept_group(model, PEOPLE)
    await accept_codes(model, "a", *range(3))
    await accept_codes(model, "b", *range(3, 8))
    await model.run_all(model.workers[0])
    await start(model, Message(("a", "b"), by_tier=True))
    await start(model, Message(("a", "b"), by_tier=True), to=PEOPLE)
    await model.run_all(model.workers[0])
    await model.check()
    assert len(model.network.ledger) == len(PEOPLE)
    assert await count_mails(model) == 2 * len(PEOPLE)


@pytest.mark.parametrize("what", sorted(REFUSALS))
async def test_a_relay_that_refuses_all_mails_uses_up_none(model: Model, what: str) -> None:
    """The sendout pauses or waits, also after a resume. When the relay accepts mails again, each recipient gets one."""
    await accept_group(model, PEOPLE)
    await accept_codes(model, "a", *range(8))
    await model.run_all(model.workers[0])
    sendout = await start(model, Message(("a",)))
    model.network.refuses = what
    for worker in model.workers:
        await model.run_all(worker)
        await model.advance_time()
        await model.check()
        await model.receive(ResumeSendout(id=model.new_id(), sendout=sendout), worker)
    model.network.refuses = None
    assert await count_mails(model) == len(PEOPLE)
