"""`eventually` and `until` wait for facts."""

import asyncio

import pytest

from tests.waiting import eventually, until


def test_waiting_returns_the_first_true_value() -> None:
    """The caller can use the value that it waited for."""
    values = iter([0, None, 3, 4])
    assert eventually(lambda: next(values), "a number", every=0) == 3


def test_waiting_in_vain_shows_the_last_state() -> None:
    """The error contains what was expected, and the last value of the fact or of `seen`."""
    with pytest.raises(AssertionError, match=r"waited 0 s for a mail; last state: \[\]"):
        eventually(list, "a mail", within=0)
    with pytest.raises(AssertionError, match="waited 0 s for the end; last state: 'sending'"):
        eventually(bool, "the end", within=0, seen=lambda: "sending")


async def test_awaiting_takes_functions_and_coroutine_functions() -> None:
    """Functions and coroutine functions give the same result."""

    async def state() -> str:
        return "sending"

    values = iter([0, 3])
    await until(lambda: next(values))
    await until(state)
    assert list(values) == []
    with pytest.raises(AssertionError, match=r"waited 0.01 s for the end; last state: 'sending'"):
        await until(bool, "the end", within=0.01, seen=state)


async def test_the_limit_ends_a_fact_that_hangs() -> None:
    """A query that waits for a lock cannot delay a test beyond the limit."""
    with pytest.raises(AssertionError, match=r"for a lock; last state: None"):
        await until(asyncio.Event().wait, "a lock", within=0.01)


async def test_a_timeout_of_the_fact_itself_is_not_hidden() -> None:
    """Only the limit of the helper becomes an AssertionError."""

    async def fails() -> bool:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await until(fails)
