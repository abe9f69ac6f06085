"""Each fault is injected at each interaction point of a worker with the outside world, one at a time."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from coupons.commands import ImportCoupons, Recipient, StartSendout
from coupons.states import ImportMode
from tests.faults.lab import LONG
from tests.faults.model import BOTH, Model
from tests.faults.model_interaction_points import Fault, FaultKind
from tests.faults.model_worker import Worker

PEOPLE = tuple(Recipient(email=f"p{number}@example.org") for number in range(5))
FATES_OF_FIRST = ("sent", "refused", "accepted, reply lost", "deferred", "sent after it was queued")
FATES_OF_OTHERS = ("sent", "deferred", "deferred", "sent", "deferred")

MIN_POINTS = 8
STRIDES = {"receive_command": 10, "import_codes": 15, "prepare": 10, "deliver": 8}
"""The short form injects faults at every nth point only. Freezing is possible at few points, so it is tried at all of
them, except in an import.
"""

Work = Callable[[Model, Worker], Awaitable[Coroutine[Any, Any, Any]]]
"""A function that prepares work for the worker and returns the work as a coroutine."""


async def receive_command(model: Model, worker: Worker) -> Coroutine[Any, Any, Any]:
    return worker.intake._commit(StartSendout(id=model.new_id(), message=BOTH.name, recipients=PEOPLE))


async def import_codes(model: Model, worker: Worker) -> Coroutine[Any, Any, Any]:
    codes = model.new_codes(len(PEOPLE))
    await model.receive(
        ImportCoupons(
            id=model.new_id(), list="b", mode=ImportMode.REPLACE, codes=codes, confirmed=True, allow_empty=True
        ),
        worker,
    )
    return worker.importer.step()


async def prepare(model: Model, worker: Worker) -> Coroutine[Any, Any, Any]:
    await model.run(worker, await receive_command(model, worker))
    return worker.preparer.step()


async def deliver(model: Model, worker: Worker) -> Coroutine[Any, Any, Any]:
    await model.run(worker, await prepare(model, worker))
    worker.relays.set_fates(FATES_OF_FIRST)
    return worker.deliverer.step()


Interlude = Callable[[Model, Worker], Awaitable[None]]
"""A function that lets another worker act while the first worker is frozen."""


async def nothing(model: Model, other: Worker) -> None:
    pass


async def others_take_over(model: Model, other: Worker) -> None:
    await model.advance_time()
    await model.run_all(other, FATES_OF_OTHERS)


async def uncertain_mails_are_resent(model: Model, other: Worker) -> None:
    await model.advance_time()
    await model.run(other, other.sweeper.step())
    for sendout in await model.sendouts():
        await model.resolve(sendout, "resend")
    await model.run_all(other, FATES_OF_OTHERS)


async def sendouts_are_paused(model: Model, other: Worker) -> None:
    for sendout in await model.sendouts():
        await model.attempt(model.pause(sendout))


async def sendouts_are_cancelled(model: Model, other: Worker) -> None:
    for sendout in await model.sendouts():
        await model.attempt(model.cancel(sendout))
    await others_take_over(model, other)


@pytest.mark.parametrize("work", [receive_command, import_codes, prepare, deliver])
@pytest.mark.parametrize("kind", ["dies", "loses the connection", "loses the reply"])
async def test_a_fault_at_any_interaction_point_loses_nothing(
    work: Work, kind: FaultKind, model_url: str, quick_retries: None
) -> None:
    """The oracle's rules hold right after the fault, and all work finishes without a lost or duplicated mail."""
    await inject_at_each_point(work, kind, nothing, model_url)


@pytest.mark.parametrize("work", [import_codes, prepare, deliver])
@pytest.mark.parametrize(
    "interlude", [nothing, others_take_over, uncertain_mails_are_resent, sendouts_are_paused, sendouts_are_cancelled]
)
async def test_a_worker_that_froze_at_any_interaction_point_does_no_harm(
    work: Work, interlude: Interlude, model_url: str, quick_retries: None
) -> None:
    """No mail is lost or duplicated if a worker freezes while others take over, pause or cancel its work."""
    await inject_at_each_point(work, "freezes", interlude, model_url)


async def inject_at_each_point(work: Work, kind: FaultKind, interlude: Interlude, model_url: str) -> None:
    """Inject the fault at one point after another, until the work has no further point."""
    async with Model.open(model_url) as model:
        await model.add_stock()
        every = LONG or (kind == "freezes" and work is not import_codes)
        at, stride = 1, 1 if every else STRIDES[work.__name__]
        while met := await inject_at(model, work, Fault(kind, at), interlude):
            await model.finish_all()
            at = met + stride
        assert at > MIN_POINTS


async def inject_at(model: Model, work: Work, fault: Fault, interlude: Interlude) -> int:
    """Inject a fault at `fault.at` or the next possible point; return the number of that point, 0 if there is none."""
    worker, other = model.workers
    await model.run(worker, await work(model, worker), fault)
    met = worker.points.hit_at
    await model.check()
    if worker.is_frozen:
        await interlude(model, other)
        await model.check()
        await model.resume(worker)
        await model.check()
    return met
