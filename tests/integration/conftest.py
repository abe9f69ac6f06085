"""A connection to a fresh database, and a second one to disturb the first."""

from collections.abc import AsyncIterator

import pytest

from coupons.database import Connection, connected
from coupons.store import invariants


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """When the test ends, what it left behind must be proved right."""
    async with connected(database_url) as connection:
        yield connection
        wrong = [proof for proof in await invariants.prove(connection) if not proof.holds]
        assert not wrong


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Connection]:
    async with connected(database_url) as connection:
        yield connection
