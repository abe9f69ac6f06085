"""A lease is renewed while the work runs, and the work stops when the lease is lost."""

import asyncio

import pytest

from coupons.errors import LeaseLost
from coupons.lease import renewed_lease


async def test_work_under_a_renewed_lease_finishes() -> None:
    """The lease is renewed as long as the work runs."""
    beats = asyncio.Event()

    async def renew() -> None:
        beats.set()

    async with renewed_lease(renew, every=0.01, expires_after=1):
        async with asyncio.timeout(5):
            await beats.wait()


async def test_work_whose_lease_is_lost_is_stopped() -> None:
    """The work stops at its next await."""

    async def renew() -> None:
        raise LeaseLost("batch 7")

    with pytest.raises(LeaseLost, match="batch 7"):
        async with renewed_lease(renew, every=0.01, expires_after=1):
            await asyncio.sleep(30)


async def test_work_stops_before_a_lease_that_cannot_be_renewed_expires() -> None:
    """While the database is unavailable, renewals are retried, but only until the lease expires."""
    asked = 0

    async def renew() -> None:
        nonlocal asked
        asked += 1
        raise ConnectionResetError

    with pytest.raises(LeaseLost):
        async with renewed_lease(renew, every=0.05, expires_after=0.3):
            await asyncio.sleep(30)
    assert asked > 1


async def test_an_error_of_the_work_is_raised_unchanged() -> None:
    """After an error of the work, the lease is no longer renewed."""
    tasks = len(asyncio.all_tasks())

    async def renew() -> None:
        return

    with pytest.raises(ZeroDivisionError):
        async with renewed_lease(renew, every=0.01, expires_after=1):
            raise ZeroDivisionError
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == tasks
