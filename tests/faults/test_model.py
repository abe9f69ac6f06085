"""Commands, work, faults and decisions in any order: after each step the books are right, and so are the mails.

Hypothesis draws what happens next. What it finds it makes as short as it can, and tells step by step.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs

from coupons.commands import Command, ImportCoupons, Recipient, ResumeSendout, StartSendout
from coupons.errors import Conflict
from coupons.states import ImportMode, Shortage
from coupons.store.uncertain import Resolution
from tests.faults.lab import LONG
from tests.faults.model import Shop
from tests.faults.model_interaction_points import Fault
from tests.faults.model_network import FATES
from tests.faults.model_worker import Worker, hurry

GROUP = "everybody"
EITHER = st.integers(0, 1)
LISTS: dict[str, Shortage] = {"a": Shortage.PAUSE, "b": Shortage.TEXT, "c": Shortage.PAUSE}
NAMES = st.sampled_from(sorted(LISTS))
OF_LISTS = st.sets(NAMES, min_size=1)
CODES = st.sets(st.integers(0, 11), min_size=3).map(lambda them: [f"C{each}" for each in sorted(them)])
PEOPLE = st.sets(st.integers(0, 7), min_size=2).map(lambda them: [f"p{each}@example.org" for each in sorted(them)])
MODES = st.sampled_from(ImportMode)
CONTACTS = st.integers(1, 30)
TROUBLES = st.builds(Fault, st.sampled_from(("is cut off", "hears no answer")), CONTACTS)
PERHAPS = st.none() | TROUBLES | st.builds(Fault, st.sampled_from(("stands still", "dies")), CONTACTS)
RARELY = st.sampled_from((False, False, False, True))
FATES_OF_MAILS = st.lists(st.sampled_from(sorted(FATES)), max_size=6)

MOST_REMADE = 3
"""Lists of an example that are deleted: it is to go on with the others."""

T = TypeVar("T")


class AnyOrder(RuleBasedStateMachine):
    url: str

    commands: "Bundle[Command]" = Bundle("commands")
    started: "Bundle[UUID]" = Bundle("started")

    def __init__(self) -> None:
        super().__init__()
        self.is_right = True
        self.remade = 0
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.opening = Shop.opened(self.url)
        self.shop = self.run(self.opening.__aenter__())

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        try:
            return self.runner.run(act)
        except BaseException:
            self.is_right = False
            raise

    def teardown(self) -> None:
        try:
            if self.is_right:
                self.run(self.shop.come_to_the_end())
        finally:
            self.run(self.opening.__aexit__(None, None, None))
            self.runner.close()

    @invariant()
    def books_and_mails_are_right(self) -> None:
        self.run(self.shop.check())

    @property
    def free(self) -> list[Worker]:
        return [worker for worker in self.shop.workers if not worker.stands_still]

    @property
    def standing(self) -> list[Worker]:
        return [worker for worker in self.shop.workers if worker.stands_still]

    def worker(self, which: int) -> Worker:
        return self.free[which % len(self.free)]

    def sleeper(self, which: int) -> Worker:
        return self.standing[which % len(self.standing)]

    def comes(self, command: Command, which: int = 0, fault: Fault | None = None) -> Command:
        self.run(self.shop.comes(command, self.worker(which), fault))
        return command

    def works(
        self,
        which: int,
        role: str,
        fault: Fault | None,
        fates: Sequence[str] = (),
        *,
        outage: bool = False,
        later: bool = False,
    ) -> None:
        self.two_hours_pass(later)
        worker = self.worker(which)
        worker.wire.meets(fates, outage=outage)
        self.run(self.shop.works(worker, getattr(worker, role).step(), fault))

    # --- people --------------------------------------------------------------------------------------------------

    @initialize(target=started, codes=CODES, people=PEOPLE, of_lists=OF_LISTS)
    def the_shop_opens(self, codes: list[str], people: list[str], of_lists: set[str]) -> UUID:
        """With some stock, an audience, and a sendout that is prepared."""
        for name, shortage in LISTS.items():
            self.run(self.shop.create_list(name, shortage))
            self.codes_come(name, ImportMode.ADD, codes, 0, None)
        self.people_come(people, ImportMode.ADD, 0, None)
        self.run(self.shop.do_all(self.worker(0)))
        sendout = self.start(of_lists, None, by_itself=False)
        self.works(0, "preparer", None)
        return sendout

    @precondition(lambda self: self.free)
    @rule(
        target=started, of_lists=OF_LISTS, to=st.none() | PEOPLE, by_itself=st.booleans(), which=EITHER, fault=PERHAPS
    )
    def a_sendout_starts(
        self, of_lists: set[str], to: list[str] | None, by_itself: bool, which: int, fault: Fault | None
    ) -> UUID:
        return self.start(of_lists, to, by_itself=by_itself, which=which, fault=fault)

    def start(
        self, of_lists: set[str], to: list[str] | None, *, by_itself: bool, which: int = 0, fault: Fault | None = None
    ) -> UUID:
        self.run(self.shop.ask(self.shop.save_message("m", of_lists)))
        command = StartSendout(
            id=self.shop.new_id(),
            message="m",
            group=None if to else GROUP,
            recipients=tuple(Recipient(email=each) for each in to) if to else None,
            auto_resume=by_itself,
        )
        return self.comes(command, which, fault).id

    @precondition(lambda self: self.free)
    @rule(target=commands, name=NAMES, mode=MODES, codes=CODES, which=EITHER, fault=PERHAPS)
    def codes_come(self, name: str, mode: ImportMode, codes: list[str], which: int, fault: Fault | None) -> Command:
        return self.comes(ImportCoupons(id=self.shop.new_id(), list=name, mode=mode, codes=tuple(codes)), which, fault)

    @precondition(lambda self: self.free)
    @rule(target=commands, people=PEOPLE, mode=MODES, which=EITHER, fault=PERHAPS)
    def people_come(self, people: list[str], mode: ImportMode, which: int, fault: Fault | None) -> Command:
        source = self.run(self.shop.upload(people))
        return self.comes(ImportCoupons(id=self.shop.new_id(), group=GROUP, mode=mode, source=source), which, fault)

    @precondition(lambda self: self.remade < MOST_REMADE)
    @rule(name=NAMES)
    def a_list_is_deleted_and_made_anew(self, name: str) -> None:
        """Where that is allowed."""
        self.remade += 1
        self.run(self.shop.ask(self.shop.delete_list(name), self.shop.create_list(name, LISTS[name])))

    @rule(sendout=started, then=st.sampled_from(("paused", "paused", "cancelled")))
    def it_is(self, sendout: UUID, then: str) -> None:
        self.run(self.shop.ask(self.shop.pause(sendout) if then == "paused" else self.shop.cancel(sendout)))

    @precondition(lambda self: self.free)
    @rule(target=commands, sendout=started, which=EITHER, fault=PERHAPS)
    def it_is_to_resume(self, sendout: UUID, which: int, fault: Fault | None) -> Command:
        return self.comes(ResumeSendout(id=self.shop.new_id(), sendout=sendout), which, fault)

    @rule(sendout=started, how=st.sampled_from(("resend", "accept")))
    def its_uncertain_mails_are_decided(self, sendout: UUID, how: Resolution) -> None:
        self.run(self.shop.ask(self.shop.resolve(sendout, how)))

    @precondition(lambda self: self.free)
    @rule(command=commands, which=EITHER, other=st.booleans())
    def a_command_comes_again(self, command: Command, which: int, other: bool) -> None:
        """Nothing changes, if it was heard; one of another content is refused."""
        if command in self.shop.unheard:
            self.comes(command, which)
            return
        before = self.run(self.shop.states())
        again = ResumeSendout(id=command.id, sendout=UUID(int=0)) if other else command
        came_of = self.run(self.shop.comes(again, self.worker(which)))
        assert isinstance(came_of, Conflict) or not other
        assert self.run(self.shop.states()) == before

    # --- workers -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.free)
    @rule(which=EITHER, at=CONTACTS, fates=FATES_OF_MAILS, later=st.booleans())
    def a_worker_delivers_and_stands_still(self, which: int, at: int, fates: list[str], later: bool) -> None:
        self.works(which, "deliverer", Fault("stands still", at), fates, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, at=CONTACTS, fates=FATES_OF_MAILS, later=st.booleans())
    def a_worker_delivers_and_dies(self, which: int, at: int, fates: list[str], later: bool) -> None:
        self.works(which, "deliverer", Fault("dies", at), fates, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, fault=TROUBLES, fates=FATES_OF_MAILS, later=st.booleans())
    def a_worker_delivers_and_has_trouble(self, which: int, fault: Fault, fates: list[str], later: bool) -> None:
        self.works(which, "deliverer", fault, fates, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, fates=FATES_OF_MAILS, outage=RARELY, later=st.booleans())
    def a_worker_delivers(self, which: int, fates: list[str], outage: bool, later: bool) -> None:
        self.works(which, "deliverer", None, fates, outage=outage, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, role=st.sampled_from(("preparer", "sweeper", "importer")), fault=PERHAPS, later=st.booleans())
    def a_worker_does(self, which: int, role: str, fault: Fault | None, later: bool) -> None:
        self.works(which, role, fault, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, fates=FATES_OF_MAILS, later=st.booleans())
    def a_worker_does_all_there_is(self, which: int, fates: list[str], later: bool) -> None:
        self.two_hours_pass(later)
        self.run(self.shop.do_all(self.worker(which), fates))

    @precondition(lambda self: self.standing)
    @rule(
        which=EITHER,
        after=st.sampled_from(("no time", "two hours", "others did its work")),
        fates=FATES_OF_MAILS,
        fault=PERHAPS,
    )
    def who_stood_still_goes_on(self, which: int, after: str, fates: list[str], fault: Fault | None) -> None:
        self.two_hours_pass(after != "no time")
        if self.free and after == "others did its work":
            self.run(self.shop.do_all(self.worker(0), fates))
        self.run(self.shop.goes_on(self.sleeper(which), fault))

    @precondition(lambda self: self.standing)
    @rule(which=EITHER)
    def who_stood_still_is_killed(self, which: int) -> None:
        self.run(self.shop.kill(self.sleeper(which)))

    def two_hours_pass(self, later: bool) -> None:
        if later:
            self.run(self.shop.time_goes_on())


EVERY = settings(
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
"""A step is a few dozen statements on a real database: slower than what hypothesis takes for healthy."""
SHORT = settings(EVERY, max_examples=10, stateful_step_count=25, derandomize=True, database=None)
LONG_FORM = settings(EVERY, max_examples=250, stateful_step_count=40)


def test_nothing_is_lost_and_nothing_is_twice_in_any_order(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step `coupons verify` finds nothing, every mail that came is its recipient's own and in the books, and
    nobody got a second one that was not asked for; at the end every recipient is in one final state, nobody is lost.
    """
    hurry(monkeypatch)
    monkeypatch.setattr(AnyOrder, "url", database_url, raising=False)
    with capture_logs():  # what hypothesis tells is easier to read
        run_state_machine_as_test(AnyOrder, settings=LONG_FORM if LONG else SHORT)
