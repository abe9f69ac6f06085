"""The in-flight window limits how many mails may be in flight."""

import time
from collections.abc import Iterable

import pytest

from workers.delivery.in_flight import InFlight
from workers.delivery.in_flight_window import InFlightWindow

LEAST = 20


def hand_over(in_flight: InFlight, numbers: Iterable[int]) -> None:
    in_flight.begin_flush(numbers)
    in_flight.commit(may_send=True)


def settle(in_flight: InFlight, numbers: Iterable[int]) -> None:
    for number in numbers:
        in_flight.settle(number, None)


def record(in_flight: InFlight) -> None:
    in_flight.begin_flush([])
    in_flight.commit(may_send=True)


def test_a_window_starts_small() -> None:
    """Until the relay's speed is known, few mails are at risk."""
    assert InFlightWindow(200, least=LEAST).size == LEAST


def test_a_window_never_exceeds_its_limit() -> None:
    """The window does not exceed its limit at the start either."""
    assert InFlightWindow(5, least=LEAST).size == 5


def test_a_window_holds_what_the_relay_accepts_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window grows up to its limit and shrinks again."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    window = InFlightWindow(200, least=LEAST)

    def size_at(per_second: int) -> int:
        for _ in range(20):
            now[0] += 1
            window.release(per_second)
        return window.size

    assert [size_at(1_000), size_at(30), size_at(0)] == [200, pytest.approx(30, abs=1), LEAST]


def test_batches_share_a_window() -> None:
    """A single batch has the whole window.

    Two have half each, and the second waits until the first has fewer mails in flight.
    """
    window = InFlightWindow(LEAST, least=LEAST)
    first_mails, second_mails = InFlight(), InFlight()
    with window.share(first_mails) as first:
        assert first.room(100) == LEAST
        hand_over(first_mails, range(LEAST))
        with window.share(second_mails) as second:
            assert second.room(100) == 0
            settle(first_mails, range(4))
            assert first.room(100) == 0
            record(first_mails)
            assert second.room(100) == 4
        assert first.room(100) == 4


def test_settled_mails_make_room_for_the_next_flush() -> None:
    """The transaction that records their outcomes also commits the intents of the next mails."""
    window, mails = InFlightWindow(LEAST, least=LEAST), InFlight()
    with window.share(mails) as share:
        hand_over(mails, range(LEAST))
        settle(mails, range(3))
        assert share.room(100) == 3


def test_a_batch_is_granted_no_more_than_it_wants() -> None:
    """The rest of the window stays free for other batches."""
    window = InFlightWindow(LEAST, least=LEAST)
    with window.share(InFlight()) as share:
        assert share.room(7) == 7


def test_a_batch_that_wants_no_room_leaves_its_part_to_the_others() -> None:
    """While a batch waits for its last mails, another batch has the whole window."""
    window = InFlightWindow(100, least=100)
    with window.share(InFlight()) as first, window.share(InFlight()) as second:
        assert second.room(100) == 50
        assert first.room(0) == 0
        assert second.room(100) == 100
        assert first.room(1) == 1
        assert second.room(100) == 50


def test_a_batch_gives_its_room_back_when_it_ends() -> None:
    """The room is free again whether the batch ends normally or with an error."""
    window, mails = InFlightWindow(LEAST, least=LEAST), InFlight()
    with pytest.raises(ZeroDivisionError), window.share(mails):
        hand_over(mails, range(7))
        assert window.in_flight == 7
        raise ZeroDivisionError
    assert window.in_flight == 0


def test_mails_on_stalled_connections_leave_the_others_their_room() -> None:
    """Neither their own batch nor another batch waits for replies that may take ten minutes."""
    stalled: list[object] = []
    window = InFlightWindow(100, least=LEAST, stalled_owners=lambda: stalled)
    first_mails, second_mails = InFlight(), InFlight()
    with window.share(first_mails) as first, window.share(second_mails) as second:
        hand_over(first_mails, range(10))
        hand_over(second_mails, range(10))
        assert first.room(100) == second.room(100) == 0
        stalled[:] = [first_mails] * 8
        assert first.room(100) == 8
        settle(second_mails, range(3))
        assert second.room(100) == 3
        first.room(0)
        assert second.room(100) == 3 + 8


def test_stalled_mails_count_towards_the_limit() -> None:
    """However the relays behave, a killed worker leaves no more uncertain mails than the in-flight limit."""
    stalled: list[object] = []
    window, mails = InFlightWindow(25, least=LEAST, stalled_owners=lambda: stalled), InFlight()
    with window.share(mails) as share:
        hand_over(mails, range(20))
        stalled[:] = [mails] * 20
        assert share.room(100) == 5
        hand_over(mails, range(20, 25))
        stalled[:] = [mails] * 25
        assert share.room(100) == 0
        settle(mails, range(2))
        stalled[:] = [mails] * 23
        assert share.room(100) == 2
