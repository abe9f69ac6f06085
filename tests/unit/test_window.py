"""How many mails may be in hand."""

import time

import pytest

from workers.delivery.window import Window

LEAST = 20


def test_a_window_begins_small() -> None:
    """Until it is known how fast the relay is, few mails are at stake."""
    assert Window(200, least=LEAST).size == LEAST


def test_a_window_never_exceeds_its_most() -> None:
    """Not even at the beginning."""
    assert Window(5, least=LEAST).size == 5


def test_a_window_is_what_the_relay_takes_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows to the most that is allowed, and shrinks again."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    window = Window(200, least=LEAST)

    def sends(per_second: int) -> int:
        for _ in range(20):
            now[0] += 1
            window.note(per_second)
        return window.size

    assert [sends(1_000), sends(30), sends(0)] == [200, pytest.approx(30, abs=1), LEAST]


def test_batches_share_a_window() -> None:
    """One has it all; of two each has half, and the second waits until the first has less in hand."""
    window = Window(LEAST, least=LEAST)
    with window.share() as first:
        first.take(first.room(freed=0))
        assert first.taken == LEAST
        with window.share() as second:
            assert second.room(freed=0) == 0
            assert first.room(freed=4) == 0
            first.give_back(4)
            assert second.room(freed=0) == 4
        assert first.room(freed=0) == 4


def test_what_a_batch_leaves_in_hand_is_given_back() -> None:
    """However its work ends."""
    window = Window(LEAST, least=LEAST)
    with pytest.raises(ZeroDivisionError), window.share() as share:
        share.take(7)
        raise ZeroDivisionError
    assert window.free == LEAST


def test_mails_on_silent_connections_leave_the_others_their_room() -> None:
    """Neither their own batch nor another one waits for answers that may not come for ten minutes."""
    window = Window(100, least=LEAST)
    with window.share() as first, window.share() as second:
        first.take(10)
        second.take(10)
        assert first.room(freed=0) == second.room(freed=0) == 0
        assert first.room(freed=0, silent=8, all_silent=8) == 8
        assert second.room(freed=3, all_silent=8) == 3
        first.leave()
        assert second.room(freed=3, all_silent=8) == 3 + 8


def test_silent_mails_count_towards_the_most() -> None:
    """A worker that is killed leaves as many uncertain as was promised, whatever its relays do."""
    window = Window(25, least=LEAST)
    with window.share() as share:
        share.take(20)
        assert share.room(freed=0, silent=20, all_silent=20) == 5
        share.take(5)
        assert share.room(freed=0, silent=25, all_silent=25) == 0
        assert share.room(freed=2, silent=23, all_silent=23) == 2
