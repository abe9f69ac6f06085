"""The oracle's rules hold after each step, for commands, work, faults and operators' actions in any order.

Hypothesis generates the steps. It shrinks a failing example and prints it.
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

from coupons.addresses import parse_address
from coupons.commands import Command, ImportCoupons, Recipient, ResumeSendout, StartSendout
from coupons.errors import Conflict
from coupons.states import FILE_MODES, ImportMode, Shortage
from coupons.store.retries import Choice, Correction
from coupons.store.uncertain import Resolution
from tests.faults.lab import LONG
from tests.faults.model import Model
from tests.faults.model_codes import SPELLINGS, codes
from tests.faults.model_interaction_points import Fault
from tests.faults.model_messages import TIERS, Message, People
from tests.faults.model_network import FATES, REFUSALS
from tests.faults.model_worker import Worker, shorten_retries

GROUP = "all"
EITHER = st.integers(0, 1)
LISTS: dict[str, Shortage] = {"a": Shortage.PAUSE, "b": Shortage.TEXT, "c": Shortage.PAUSE}
NAMES = st.sampled_from(sorted(LISTS))
OF_LISTS = st.sets(NAMES, min_size=1)
NUMBERS = st.sets(st.integers(0, 11), min_size=3)
"""Of each list's own codes. The number of a code is 3 times one of these, plus the number of its list."""
SPELLING = st.sampled_from(sorted(SPELLINGS))
PEOPLE = st.dictionaries(st.integers(0, 7), st.sampled_from(TIERS), min_size=2).map(
    lambda them: {f"p{each}@example.org": tier for each, tier in sorted(them.items())}
)
MODES = st.sampled_from(FILE_MODES)
POINTS = st.integers(1, 30)
CONNECTION_FAULTS = st.builds(Fault, st.sampled_from(("loses the connection", "loses the reply")), POINTS)
MAYBE_FAULT = st.none() | CONNECTION_FAULTS | st.builds(Fault, st.sampled_from(("freezes", "dies")), POINTS)
RARELY = st.sampled_from((False, False, False, True))
AFTER: st.SearchStrategy[list[int]] = st.just([]) | st.lists(st.integers(0, 5), min_size=1, max_size=2)
"""Imports that a command must wait for, by their places in the order of publishing; 0 is the latest."""
FATES_OF_MAILS = st.lists(st.sampled_from(sorted(FATES)), max_size=6)


def codes_of(name: str, numbers: set[int], spelling: str = "composed") -> tuple[str, ...]:
    """The own codes of a list that have these numbers."""
    return codes((3 * number + [*LISTS].index(name) for number in numbers), spelling)


MAX_RECREATED = 3
"""The maximum number of lists that an example deletes and creates again."""

T = TypeVar("T")


class AnyOrderMachine(RuleBasedStateMachine):
    url: str

    commands: "Bundle[Command]" = Bundle("commands")
    started: "Bundle[UUID]" = Bundle("started")

    def __init__(self) -> None:
        super().__init__()
        self.passed = True
        self.recreated = 0
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.opening = Model.open(self.url)
        self.model = self.run(self.opening.__aenter__())

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        try:
            return self.runner.run(act)
        except BaseException:
            self.passed = False
            raise

    def teardown(self) -> None:
        try:
            if self.passed:
                self.run(self.model.finish_all())
        finally:
            self.run(self.opening.__aexit__(None, None, None))
            self.runner.close()

    @invariant()
    def rules_hold(self) -> None:
        self.run(self.model.check())

    @property
    def free(self) -> list[Worker]:
        return [worker for worker in self.model.workers if not worker.is_frozen]

    @property
    def frozen(self) -> list[Worker]:
        return [worker for worker in self.model.workers if worker.is_frozen]

    def worker(self, which: int) -> Worker:
        return self.free[which % len(self.free)]

    def frozen_worker(self, which: int) -> Worker:
        return self.frozen[which % len(self.frozen)]

    def receive(self, command: Command, which: int = 0, fault: Fault | None = None) -> Command:
        self.run(self.model.receive(command, self.worker(which), fault))
        return command

    def run_step(
        self,
        which: int,
        role: str,
        fault: Fault | None,
        fates: Sequence[str] = (),
        *,
        outage: bool = False,
        later: bool = False,
    ) -> None:
        self.advance_time_if(later)
        worker = self.worker(which)
        worker.relays.set_fates(fates, outage=outage)
        self.run(self.model.run(worker, getattr(worker, role).step(), fault))

    # --- operators ------------------------------------------------------------------------------------------------

    @initialize(target=started, numbers=NUMBERS, people=PEOPLE, of_lists=OF_LISTS)
    def set_up(self, numbers: set[int], people: People, of_lists: set[str]) -> UUID:
        """Create lists with codes, a group and a prepared sendout."""
        for name, shortage in LISTS.items():
            self.run(self.model.create_list(name, shortage))
            self.receive(ImportCoupons(id=self.model.new_id(), list=name, codes=codes_of(name, numbers)))
        self.import_group(people=people, mode=ImportMode.ADD, queued=False, which=0, fault=None)
        self.run(self.model.run_all(self.worker(0)))
        sendout = self.start(Message.of(of_lists), None)
        self.run_step(0, "preparer", None)
        return sendout

    @precondition(lambda self: self.free)
    @rule(
        target=started,
        of_lists=OF_LISTS,
        by_tier=st.booleans(),
        to=st.none() | PEOPLE,
        auto_resume=st.booleans(),
        after=AFTER,
        which=EITHER,
        fault=MAYBE_FAULT,
    )
    def start_sendout(
        self,
        *,
        of_lists: set[str],
        by_tier: bool,
        to: People | None,
        auto_resume: bool,
        after: list[int],
        which: int,
        fault: Fault | None,
    ) -> UUID:
        message = Message.of(of_lists, by_tier=by_tier)
        return self.start(message, to, auto_resume=auto_resume, after=after, which=which, fault=fault)

    def start(
        self,
        message: Message,
        to: People | None,
        *,
        auto_resume: bool = False,
        after: Sequence[int] = (),
        which: int = 0,
        fault: Fault | None = None,
    ) -> UUID:
        self.run(self.model.attempt(self.model.save_message(message)))
        recipients = tuple(Recipient(email=each, attributes={"tier": tier}) for each, tier in (to or {}).items())
        command = StartSendout(
            id=self.model.new_id(),
            message=message.name,
            group=None if to else GROUP,
            recipients=recipients or None,
            auto_resume=auto_resume,
            after=self.published(after),
        )
        return self.receive(command, which, fault).id

    def published(self, places: Sequence[int]) -> tuple[UUID, ...]:
        """The ids of the imports that were published at these places."""
        known = self.model.imports
        return tuple(dict.fromkeys(known[place % len(known)].id for place in places if known))

    @precondition(lambda self: self.free)
    @rule(
        target=commands,
        name=NAMES,
        mode=MODES,
        numbers=NUMBERS,
        of=st.none() | NAMES,
        spelling=SPELLING,
        queued=RARELY,
        which=EITHER,
        fault=MAYBE_FAULT,
    )
    def import_codes(
        self,
        *,
        name: str,
        mode: ImportMode,
        numbers: set[int],
        of: str | None,
        spelling: str,
        queued: bool,
        which: int,
        fault: Fault | None,
    ) -> Command:
        """Import codes into a list: its own, or those `of` any list."""
        codes = codes_of(of or name, numbers, spelling)
        command = ImportCoupons(
            id=self.model.new_id(), list=name, mode=mode, codes=codes, confirmed=True, allow_empty=True
        )
        return self.publish(command, queued=queued, which=which, fault=fault)

    @precondition(lambda self: self.free)
    @rule(of=NAMES, numbers=NUMBERS, spellings=st.permutations(sorted(SPELLINGS)), which=EITHER)
    def import_into_each_list(self, of: str, numbers: set[int], spellings: list[str], which: int) -> None:
        """Let workers accept an import of the same codes into each list; the imports run later, in any order."""
        for name, spelling in zip(LISTS, spellings, strict=False):
            codes = codes_of(of, numbers, spelling)
            self.receive(ImportCoupons(id=self.model.new_id(), list=name, codes=codes), which)

    @precondition(lambda self: self.free)
    @rule(target=commands, people=PEOPLE, mode=MODES, queued=RARELY, which=EITHER, fault=MAYBE_FAULT)
    def import_group(
        self, *, people: People, mode: ImportMode, queued: bool, which: int, fault: Fault | None
    ) -> Command:
        source = self.run(self.model.upload(people))
        command = ImportCoupons(
            id=self.model.new_id(), group=GROUP, mode=mode, source=source, confirmed=True, allow_empty=True
        )
        return self.publish(command, queued=queued, which=which, fault=fault)

    def publish(self, command: ImportCoupons, *, queued: bool, which: int, fault: Fault | None) -> Command:
        """Publish an import. If it is `queued`, no worker receives it yet; `repeat_command` delivers it."""
        if queued:
            self.model.publish(command)
            return command
        return self.receive(command, which, fault)

    @precondition(lambda self: self.recreated < MAX_RECREATED)
    @rule(name=NAMES)
    def recreate_list(self, name: str) -> None:
        """Delete a list and create it again, unless that is rejected as a conflict."""
        self.recreated += 1
        self.run(self.model.attempt(self.model.delete_list(name), self.model.create_list(name, LISTS[name])))

    @rule(sendout=started, then=st.sampled_from(("paused", "paused", "cancelled")))
    def pause_or_cancel(self, sendout: UUID, then: str) -> None:
        self.run(self.model.attempt(self.model.pause(sendout) if then == "paused" else self.model.cancel(sendout)))

    @precondition(lambda self: self.free)
    @rule(target=commands, sendout=started, after=AFTER, which=EITHER, fault=MAYBE_FAULT)
    def resume_sendout(self, sendout: UUID, after: list[int], which: int, fault: Fault | None) -> Command:
        command = ResumeSendout(id=self.model.new_id(), sendout=sendout, after=self.published(after))
        return self.receive(command, which, fault)

    @rule(sendout=started, how=st.sampled_from(("resend", "accept")))
    def resolve_uncertain(self, sendout: UUID, how: Resolution) -> None:
        self.run(self.model.attempt(self.model.resolve(sendout, how)))

    @rule(sendout=started, refused=st.booleans(), deferred=st.booleans(), corrects=RARELY)
    def retry_mails(self, sendout: UUID, refused: bool, deferred: bool, corrects: bool) -> None:
        """Retry refused or deferred mails; with `corrects`, the address of the first refused mail is corrected."""
        wrong = self.run(self.model.refused_addresses(sendout))[:1] if corrects else []
        corrections = tuple(Correction(parse_address(each), parse_address(f"x{each}")) for each in wrong)
        choice = Choice.of(refused=refused, deferred=deferred, corrections=corrections)
        self.run(self.model.attempt(self.model.retry(sendout, choice)))

    @rule(what=st.none() | st.sampled_from(sorted(REFUSALS)))
    def change_relay(self, what: str | None) -> None:
        """Let the relay refuse all mails, or accept mails again."""
        self.model.network.refuses = what

    @precondition(lambda self: self.free)
    @rule(command=commands, which=EITHER, other=st.booleans())
    def repeat_command(self, command: Command, which: int, other: bool) -> None:
        """Check that a repeated command changes nothing, and that another command with the same id is rejected."""
        if command in self.model.undelivered:
            self.receive(command, which)
            return
        before = self.run(self.model.states())
        again = ResumeSendout(id=command.id, sendout=UUID(int=0)) if other else command
        result = self.run(self.model.receive(again, self.worker(which)))
        assert isinstance(result, Conflict) or not other
        assert self.run(self.model.states()) == before

    # --- workers -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.free)
    @rule(which=EITHER, at=POINTS, fates=FATES_OF_MAILS, later=st.booleans())
    def deliver_and_freeze(self, which: int, at: int, fates: list[str], later: bool) -> None:
        self.run_step(which, "deliverer", Fault("freezes", at), fates, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, at=POINTS, fates=FATES_OF_MAILS, later=st.booleans())
    def deliver_and_die(self, which: int, at: int, fates: list[str], later: bool) -> None:
        self.run_step(which, "deliverer", Fault("dies", at), fates, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, fault=CONNECTION_FAULTS, fates=FATES_OF_MAILS, later=st.booleans())
    def deliver_with_connection_fault(self, which: int, fault: Fault, fates: list[str], later: bool) -> None:
        self.run_step(which, "deliverer", fault, fates, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, fates=FATES_OF_MAILS, outage=RARELY, later=st.booleans())
    def deliver(self, which: int, fates: list[str], outage: bool, later: bool) -> None:
        self.run_step(which, "deliverer", None, fates, outage=outage, later=later)

    @precondition(lambda self: self.free)
    @rule(
        which=EITHER, role=st.sampled_from(("preparer", "sweeper", "importer")), fault=MAYBE_FAULT, later=st.booleans()
    )
    def run_role(self, which: int, role: str, fault: Fault | None, later: bool) -> None:
        self.run_step(which, role, fault, later=later)

    @precondition(lambda self: self.free)
    @rule(which=EITHER, fates=FATES_OF_MAILS, later=st.booleans())
    def run_all_roles(self, which: int, fates: list[str], later: bool) -> None:
        self.advance_time_if(later)
        self.run(self.model.run_all(self.worker(which), fates))

    @precondition(lambda self: self.frozen)
    @rule(
        which=EITHER,
        after=st.sampled_from(("no time", "two hours", "others took over")),
        fates=FATES_OF_MAILS,
        fault=MAYBE_FAULT,
    )
    def resume_frozen(self, which: int, after: str, fates: list[str], fault: Fault | None) -> None:
        self.advance_time_if(after != "no time")
        if self.free and after == "others took over":
            self.run(self.model.run_all(self.worker(0), fates))
        self.run(self.model.resume(self.frozen_worker(which), fault))

    @precondition(lambda self: self.frozen)
    @rule(which=EITHER)
    def kill_frozen(self, which: int) -> None:
        self.run(self.model.kill(self.frozen_worker(which)))

    def advance_time_if(self, later: bool) -> None:
        if later:
            self.run(self.model.advance_time())


EVERY = settings(
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
"""Settings for all forms. A step runs a few dozen statements on a real database: slower than Hypothesis expects."""
SHORT = settings(EVERY, max_examples=10, stateful_step_count=25, derandomize=True, database=None)
LONG_FORM = settings(EVERY, max_examples=250, stateful_step_count=40)


def test_no_order_of_steps_loses_or_duplicates_a_mail(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step all invariants hold, every mail has a delivery and its codes, and no duplicate was unrequested.

    At the end, every delivery is in a final state and no mail is lost.
    """
    shorten_retries(monkeypatch)
    monkeypatch.setattr(AnyOrderMachine, "url", database_url, raising=False)
    with capture_logs():  # so that the output of Hypothesis is easier to read
        run_state_machine_as_test(AnyOrderMachine, settings=LONG_FORM if LONG else SHORT)
