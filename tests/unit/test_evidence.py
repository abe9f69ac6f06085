"""The evidence whether a relay refuses single mails or all of them."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.delivery import evidence as module
from workers.delivery.evidence import (
    CERTAIN_IN_A_ROW,
    FIRST_SUSPECTS,
    MAILS_IN_A_ROW,
    MAX_SENDOUTS,
    MOST_SUSPECTS,
    SUSPECTS_IN_A_ROW,
    Evidence,
    WorkerEvidence,
)

REPLIES = st.lists(st.one_of(st.none(), st.integers(0, 200), st.sampled_from(["a.example", "b.example"])), max_size=400)
"""A reply that accepts (None) or refuses a mail."""


def after(replies: list[int | str | None]) -> Evidence:
    evidence = Evidence()
    for now, suspect in enumerate(replies):
        if suspect is None:
            evidence.accept(now)
        else:
            evidence.refuse(suspect)
    return evidence


@given(REPLIES)
def test_few_suspects_never_pause(replies: list[int | str | None]) -> None:
    """Neither three different suspects in a row, nor half of the first hundred mails, nor a hundred mails in a row."""
    evidence = Evidence()
    in_a_row: list[int | str] = []
    accepted = False
    for now, suspect in enumerate(replies):
        if suspect is None:
            evidence.accept(now)
            in_a_row, accepted = [], True
        else:
            evidence.refuse(suspect)
            in_a_row.append(suspect)
        first = {each for each in replies[: min(now + 1, 100)] if each is not None}
        assert evidence.shows_that_all_are_refused == (
            len({*in_a_row}) >= (SUSPECTS_IN_A_ROW if accepted else FIRST_SUSPECTS)
            or len(in_a_row) >= MAILS_IN_A_ROW
            or len(first) >= MOST_SUSPECTS
        )


@given(REPLIES)
def test_an_accepted_mail_clears_the_row(replies: list[int | str | None]) -> None:
    """After it, only the first hundred mails can show that all are refused."""
    evidence = after([*replies, None])
    assert not evidence.is_alarming
    first = {each for each in replies[:100] if each is not None}
    assert evidence.shows_that_all_are_refused == (len(first) >= MOST_SUSPECTS)


@given(REPLIES)
def test_a_pause_begins_the_evidence_again(replies: list[int | str | None]) -> None:
    """It lasts until the relay accepts a mail."""
    evidence = after(replies)
    evidence.pause(1_000)
    assert not evidence.shows_that_all_are_refused
    assert (evidence.has_paused, evidence.is_alarming, evidence.is_new) == (True, True, False)
    assert not evidence.has_accepted_since(10_000, 1_000)
    evidence.accept(1_001)
    assert (evidence.has_paused, evidence.is_alarming) == (False, False)
    assert evidence.has_accepted_since(1, 1_001)


@pytest.mark.parametrize("way", ["an accepted mail", "a pause"])
def test_after_an_accepted_mail_or_a_pause_more_suspects_are_needed(way: str) -> None:
    """Three in a row are only enough while nothing is known about the relay."""
    evidence = Evidence()
    assert evidence.is_new
    if way == "a pause":
        evidence.pause(0)
    else:
        evidence.accept(0)
    for suspect in range(SUSPECTS_IN_A_ROW):
        assert not evidence.shows_that_all_are_refused
        evidence.refuse(suspect)
    assert evidence.shows_that_all_are_refused


def test_the_first_refusals_in_a_row_that_seem_certain_are_no_suspects() -> None:
    """The next ones are."""
    evidence = Evidence()
    for number in range(CERTAIN_IN_A_ROW + FIRST_SUSPECTS):
        assert evidence.is_alarming == (number > CERTAIN_IN_A_ROW)
        assert not evidence.shows_that_all_are_refused
        evidence.refuse(number, seems_certain=True)
    assert evidence.shows_that_all_are_refused


def test_the_evidence_does_not_grow_with_the_number_of_mails() -> None:
    """A sendout of ten million mails is remembered by a few numbers."""
    evidence = after([number if number % 3 else None for number in range(10_000)])
    sizes = [len(value) for name in Evidence.__slots__ if isinstance(value := getattr(evidence, name), set)]
    assert sum(sizes) <= 100 + SUSPECTS_IN_A_ROW


def test_the_evidence_of_old_sendouts_is_forgotten() -> None:
    """A sendout that is still being sent keeps its evidence."""
    worker = WorkerEvidence()
    kept = worker.about(UUID(int=0))
    for number in range(1, 2 * MAX_SENDOUTS):
        worker.about(UUID(int=number))
        assert worker.about(UUID(int=0)) is kept
    assert len(worker._sendouts) == MAX_SENDOUTS


def test_relays_and_sendouts_have_their_own_evidence() -> None:
    """What one relay refuses says nothing about another one."""
    worker = WorkerEvidence()
    ours = worker.about(UUID(int=1))
    ours.about("a:25").accept(1)
    assert ours.about("a:25").has_accepted_since(0, 1)
    assert not ours.about("b:25").has_accepted_since(0, 1)
    assert not worker.about(UUID(int=2)).about("a:25").has_accepted_since(0, 1)
    assert module.GRACE_SECONDS > 0
