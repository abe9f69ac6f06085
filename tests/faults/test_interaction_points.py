"""A worker meets each fault at each of its contacts with the outside world, one after the other."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from coupons.commands import ImportCoupons, Recipient, StartSendout
from coupons.states import ImportMode
from tests.faults.lab import LONG
from tests.faults.model import Shop
from tests.faults.model_interaction_points import Fault, What
from tests.faults.model_worker import Worker, hurry
from tests.services import database

PEOPLE = tuple(Recipient(email=f"p{number}@example.org") for number in range(5))
ITS_FATES = ("sent", "refused", "taken, the answer lost", "deferred", "sent, after it waited")
OTHER_FATES = ("sent", "deferred", "deferred", "sent", "deferred")

FEWEST_CONTACTS = 8
STRIDES = {"take_a_command": 10, "import_codes": 15, "prepare": 10, "deliver": 8}
"""Of the short form: from one contact to the next that is tried. Whoever stands still does so at each of the few where
that can be, but in an import.
"""

Work = Callable[[Shop, Worker], Awaitable[Coroutine[Any, Any, Any]]]
"""Prepares something to do for the worker, and returns the doing."""


async def take_a_command(shop: Shop, worker: Worker) -> Coroutine[Any, Any, Any]:
    return worker.intake._commit(StartSendout(id=shop.new_id(), message="m", recipients=PEOPLE))


async def import_codes(shop: Shop, worker: Worker) -> Coroutine[Any, Any, Any]:
    codes = tuple(f"C{shop.new_id().int}" for _ in PEOPLE)
    await shop.comes(ImportCoupons(id=shop.new_id(), list="b", mode=ImportMode.REPLACE, codes=codes), worker)
    return worker.importer.step()


async def prepare(shop: Shop, worker: Worker) -> Coroutine[Any, Any, Any]:
    await shop.works(worker, await take_a_command(shop, worker))
    return worker.preparer.step()


async def deliver(shop: Shop, worker: Worker) -> Coroutine[Any, Any, Any]:
    await shop.works(worker, await prepare(shop, worker))
    worker.wire.meets(ITS_FATES)
    return worker.deliverer.step()


Meanwhile = Callable[[Shop, Worker], Awaitable[None]]
"""What happens while it stands still; another worker does it."""


async def nothing(shop: Shop, other: Worker) -> None:
    pass


async def others_do_its_work(shop: Shop, other: Worker) -> None:
    await shop.time_goes_on()
    await shop.do_all(other, OTHER_FATES)


async def uncertain_mails_are_sent_again(shop: Shop, other: Worker) -> None:
    await shop.time_goes_on()
    await shop.works(other, other.sweeper.step())
    for sendout in await shop.sendouts():
        await shop.resolve(sendout, "resend")
    await shop.do_all(other, OTHER_FATES)


async def it_is_paused(shop: Shop, other: Worker) -> None:
    for sendout in await shop.sendouts():
        await shop.ask(shop.pause(sendout))


async def it_is_cancelled(shop: Shop, other: Worker) -> None:
    for sendout in await shop.sendouts():
        await shop.ask(shop.cancel(sendout))
    await others_do_its_work(shop, other)


@pytest.fixture(scope="module")
async def shop_url(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """A database for all of these tests: a shop is opened in an empty one."""
    async with database(postgres_url, template_database) as url:
        yield url


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody waits for a database that is not away."""
    hurry(monkeypatch)
    with capture_logs():
        yield


@pytest.mark.parametrize("work", [take_a_command, import_codes, prepare, deliver])
@pytest.mark.parametrize("what", ["dies", "is cut off", "hears no answer"])
async def test_a_fault_at_any_contact_loses_nothing(work: Work, what: What, shop_url: str, at_once: None) -> None:
    """Right after it the books and the mails are right; then everything comes to its end, nobody lost, nobody twice."""
    await at_each_contact(work, what, nothing, shop_url)


@pytest.mark.parametrize("work", [import_codes, prepare, deliver])
@pytest.mark.parametrize(
    "meanwhile", [nothing, others_do_its_work, uncertain_mails_are_sent_again, it_is_paused, it_is_cancelled]
)
async def test_who_stood_still_at_any_contact_does_no_harm(
    work: Work, meanwhile: Meanwhile, shop_url: str, at_once: None
) -> None:
    """However long, and whatever others did with its work meanwhile."""
    await at_each_contact(work, "stands still", meanwhile, shop_url)


async def at_each_contact(work: Work, what: What, meanwhile: Meanwhile, shop_url: str) -> None:
    """One after the other, until the work has no such contact any more."""
    async with Shop.opened(shop_url) as shop:
        await shop.stock()
        every = LONG or (what == "stands still" and work is not import_codes)
        at, stride = 1, 1 if every else STRIDES[work.__name__]
        while met := await at_contact(shop, work, Fault(what, at), meanwhile):
            await shop.come_to_the_end()
            at = met + stride
        assert at > FEWEST_CONTACTS


async def at_contact(shop: Shop, work: Work, fault: Fault, meanwhile: Meanwhile) -> int:
    """At which it came: this one, or the next where it can; 0: at none."""
    worker, other = shop.workers
    await shop.works(worker, await work(shop, worker), fault)
    met = worker.contacts.met_at
    await shop.check()
    if worker.stands_still:
        await meanwhile(shop, other)
        await shop.check()
        await shop.goes_on(worker)
        await shop.check()
    return met
