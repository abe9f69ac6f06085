"""Mails are in flight from the commit of their intent to send until the commit of their outcome."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coupons.states import DeliveryState
from coupons.store.deliveries import Delivery, DeliveryResult
from workers.delivery.in_flight import Flush, InFlight

NUMBERS = st.integers(1, 30)


def result(number: int) -> DeliveryResult:
    return DeliveryResult.of(Delivery(number, "ada@example.org", {}, 0), DeliveryState.SENT, "250 ok")


class AnyOrder(RuleBasedStateMachine):
    """Flushes that are committed, not permitted or failed, compared with a model of the database."""

    @initialize()
    def start(self) -> None:
        self.in_flight = InFlight()
        self.flush: Flush | None = None
        self.intended: set[int] = set()
        """Mails whose intent is committed and whose outcome is not."""
        self.settled: set[int] = set()
        self.unrecorded: list[int] = []
        """The numbers of the results that are not committed, in their order."""
        self.recorded: list[int] = []
        self.used: set[int] = set()
        self.postponed: set[int] = set()
        """Mails that came back without a result: they may be handed over again."""

    @rule(number=NUMBERS, has_result=st.booleans())
    def settle(self, number: int, has_result: bool) -> None:
        """Any mail in flight gets an outcome at any time, also during a flush."""
        if number not in self.intended - self.settled:
            return
        self.in_flight.settle(number, result(number) if has_result else None)
        self.settled.add(number)
        if has_result:
            self.unrecorded.append(number)
        else:
            self.postponed.add(number)

    @rule(number=NUMBERS)
    def refuse_unsent(self, number: int) -> None:
        """A mail that cannot be rendered has a result and is never in flight."""
        if number in self.used:
            return
        self.used.add(number)
        self.in_flight.add_result(result(number))
        self.unrecorded.append(number)

    @precondition(lambda self: self.flush is None)
    @rule(numbers=st.sets(NUMBERS))
    def begin_flush(self, numbers: set[int]) -> None:
        intents = numbers - self.used
        self.used |= intents
        self.flush = self.in_flight.begin_flush(intents)
        assert set(self.flush.intents) == intents
        assert self.flush.in_flight == self.intended - self.settled
        assert [each.number for each in self.flush.results] == self.unrecorded
        assert len(self.in_flight) == len(self.intended) + len(intents)

    @precondition(lambda self: self.flush is not None)
    @rule(may_send=st.booleans())
    def commit(self, may_send: bool) -> None:
        flush = self._end_flush()
        self.in_flight.commit(may_send=may_send)
        numbers = [each.number for each in flush.results]
        self.recorded += numbers
        del self.unrecorded[: len(numbers)]
        self.intended -= flush.settled
        self.settled -= flush.settled
        self.used -= flush.settled & self.postponed
        self.postponed -= flush.settled
        if may_send:
            self.intended |= {*flush.intents}
        else:
            self.used -= {*flush.intents}

    @precondition(lambda self: self.flush is not None)
    @rule()
    def rollback(self) -> None:
        """No result is lost, and no intent counts."""
        self.used -= {*self._end_flush().intents}
        self.in_flight.rollback()

    def _end_flush(self) -> Flush:
        assert self.flush
        flush, self.flush = self.flush, None
        return flush

    @invariant()
    def every_intended_mail_is_in_flight_until_it_is_recorded(self) -> None:
        being_committed = len(self.flush.intents) if self.flush else 0
        assert len(self.in_flight) == len(self.intended) + being_committed
        assert self.in_flight.is_empty == (not self.intended)
        assert self.in_flight.settled == len(self.settled)
        assert self.in_flight.needs_flush == bool(self.intended or self.unrecorded)

    @invariant()
    def no_result_is_recorded_twice(self) -> None:
        assert len(self.recorded) == len({*self.recorded})
        assert not {*self.recorded} & {*self.unrecorded}


TestAnyOrder = AnyOrder.TestCase


def test_a_mail_enters_with_its_intent_and_leaves_with_its_outcome() -> None:
    """A mail is in flight between the two commits, and uncertain if the worker dies then."""
    in_flight = InFlight()
    in_flight.begin_flush([1, 2])
    in_flight.commit(may_send=True)
    in_flight.settle(1, result(1))
    flush = in_flight.begin_flush([3])
    assert (flush.results, {*flush.in_flight}, flush.intents) == ((result(1),), {2}, (3,))
    in_flight.commit(may_send=True)
    assert in_flight.begin_flush([]).in_flight == {2, 3}


def test_a_failed_flush_loses_no_outcome() -> None:
    """The next flush has the results of the failed one and those that came in after it began."""
    in_flight = InFlight()
    in_flight.begin_flush([1, 2])
    in_flight.commit(may_send=True)
    in_flight.settle(1, result(1))
    in_flight.begin_flush([3])
    in_flight.settle(2, result(2))
    in_flight.rollback()
    flush = in_flight.begin_flush([])
    assert (flush.results, {*flush.settled}, {*flush.in_flight}) == ((result(1), result(2)), {1, 2}, set())


def test_an_outcome_that_comes_in_during_a_flush_belongs_to_the_next_one() -> None:
    """The commit removes only the results that the flush has written."""
    in_flight = InFlight()
    in_flight.begin_flush([1, 2])
    in_flight.commit(may_send=True)
    in_flight.settle(1, result(1))
    in_flight.begin_flush([])
    in_flight.settle(2, result(2))
    in_flight.commit(may_send=True)
    flush = in_flight.begin_flush([])
    assert (flush.results, {*flush.settled}, {*flush.in_flight}) == ((result(2),), {2}, set())


def test_intents_that_may_not_be_sent_are_not_in_flight() -> None:
    """If the sendout is paused or cancelled, no mail of the flush is handed over."""
    in_flight = InFlight()
    in_flight.begin_flush([1, 2])
    in_flight.commit(may_send=False)
    assert len(in_flight) == 0


def test_a_flush_ends_once() -> None:
    """A second commit of a flush is an internal error and records nothing again."""
    in_flight = InFlight()
    in_flight.begin_flush([1])
    in_flight.commit(may_send=True)
    with pytest.raises(RuntimeError, match="no flush"):
        in_flight.commit(may_send=True)
