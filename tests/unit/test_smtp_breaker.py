"""The breaker decides when a relay leaves the rotation and when it is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.smtp.breaker import FAILURES_IN_A_ROW, Breaker, Fault

NOW = 1_000.0  # a time of the loop


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(first_seconds=1, max_seconds=60)


def test_a_relay_leaves_the_rotation_after_failures_in_a_row(breaker: Breaker) -> None:
    """Fewer failures than FAILURES_IN_A_ROW are tolerated; the last one takes the relay out of rotation."""
    assert [breaker.record_failure() for _ in range(FAILURES_IN_A_ROW)] == [False] * (FAILURES_IN_A_ROW - 1) + [True]


def test_a_sent_mail_ends_a_row_of_failures(breaker: Breaker) -> None:
    """A relay that sometimes accepts a mail is not out of rotation, even if it defers most mails."""
    for _ in range(10):
        assert not any(breaker.record_failure() for _ in range(FAILURES_IN_A_ROW - 1))
        assert not breaker.record_sent()


def test_a_relay_in_trouble_fails_with_its_first_failure(breaker: Breaker) -> None:
    """After a back-off, one failure of the connection that tries again takes the relay out of rotation."""
    breaker.trip(Fault.FAILING, "451 no")
    assert breaker.record_failure()


def test_a_sent_mail_ends_the_trouble_and_the_backoff(breaker: Breaker) -> None:
    """After a sent mail, the next trouble begins with the shortest delay."""
    for now in (NOW, NOW + 60):
        breaker.trip(Fault.FAILING, "451 no")
        breaker.back_off(now)
        breaker.end_backoff()
    assert breaker.backoff_seconds == 2
    assert breaker.record_sent()
    assert (breaker.trouble, breaker.backoff_seconds) == (None, 0)
    breaker.back_off(NOW)
    assert breaker.backoff_seconds == 1


def test_a_continued_trouble_keeps_its_beginning(breaker: Breaker) -> None:
    """If a trouble continues, its start time stays and its reason is replaced by the newest one."""
    breaker.trip(Fault.CLOSED, "refused")
    first = breaker.trouble
    breaker.trip(Fault.FAILING, "451 no")
    assert first is not None
    assert breaker.trouble is not None
    assert breaker.trouble.since == first.since
    assert (breaker.trouble.fault, breaker.trouble.reason) == (Fault.FAILING, "451 no")


def test_the_states_follow_trouble_and_backoff(breaker: Breaker) -> None:
    """A relay stays in rotation during a back-off without trouble, which follows a single refused connection."""
    assert (breaker.is_open, breaker.is_half_open) == (False, False)
    breaker.back_off(NOW)
    assert (breaker.is_open, breaker.is_half_open) == (False, False)
    breaker.trip(Fault.CLOSED, "refused")
    assert (breaker.is_open, breaker.is_half_open) == (True, False)
    breaker.end_backoff()
    assert (breaker.is_open, breaker.is_half_open) == (False, True)


def test_failures_at_the_same_time_are_one_backoff(breaker: Breaker) -> None:
    """Connections that fail at the same time double the delay only once."""
    assert breaker.back_off(NOW)
    assert not any(breaker.back_off(NOW) for _ in range(9))
    assert breaker.backoff_seconds == 1


@given(st.floats(0.01, 10), st.floats(10, 600), st.integers(1, 30))
def test_the_backoff_doubles_up_to_its_maximum(first: float, most: float, times: int) -> None:
    """The jitter makes each delay between half of it and the whole of it."""
    breaker = Breaker(first_seconds=first, max_seconds=most)
    for number in range(times):
        breaker.end_backoff()
        assert breaker.back_off(NOW)
        assert breaker.backoff_seconds == pytest.approx(min(first * 2.0**number, most))
        assert breaker.retry_at is not None
        assert breaker.backoff_seconds / 2 <= breaker.retry_at - NOW + 1e-6
        assert breaker.retry_at - NOW <= breaker.backoff_seconds + 1e-6
