"""The mails of one batch that are not in flight and have no outcome."""

import time

import pytest

from coupons.store.deliveries import Delivery
from workers.delivery.backlog import Backlog

FIRST, SECOND = (Delivery(number, f"c{number}@example.org", {}, 0) for number in (1, 2))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be changed by the test."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_postponed_mails_are_retried_after_a_while(now: list[float]) -> None:
    """All postponed mails are retried when the given time has passed since the last postponement."""
    backlog = Backlog()
    backlog.postpone([FIRST])
    now[0] = 10
    backlog.postpone([SECOND])
    now[0] = 24
    assert not backlog.retry_postponed(after_seconds=15)
    assert not backlog.waiting
    now[0] = 25
    assert backlog.retry_postponed(after_seconds=15)
    assert [*backlog.waiting] == [FIRST, SECOND]
    assert not backlog.has_postponed


def test_all_waiting_mails_can_be_postponed(now: list[float]) -> None:
    """Each postponed mail is retried once."""
    backlog = Backlog()
    backlog.waiting.extend([FIRST, SECOND])
    backlog.postpone_waiting()
    assert not backlog.waiting
    now[0] = 15
    assert backlog.retry_postponed(after_seconds=15)
    assert not backlog.retry_postponed(after_seconds=0)
    assert [*backlog.waiting] == [FIRST, SECOND]


def test_an_empty_postponement_does_not_delay_the_others(now: list[float]) -> None:
    """Postponing no mail does not change the time of the earlier postponement."""
    backlog = Backlog()
    backlog.postpone([FIRST])
    now[0] = 14
    backlog.postpone_waiting()
    now[0] = 15
    assert backlog.retry_postponed(after_seconds=15)


def test_a_closed_backlog_retries_no_mail(now: list[float]) -> None:
    """After an internal error the worker only waits for the mails in flight."""
    backlog = Backlog()
    backlog.waiting.append(FIRST)
    backlog.close()
    backlog.postpone([SECOND])
    now[0] = 60
    assert not backlog.has_postponed
    assert not backlog.retry_postponed(after_seconds=15)
    assert not backlog.waiting
