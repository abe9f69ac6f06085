"""Two connections to a fresh database."""

from collections.abc import AsyncIterator

import pytest

from coupons.database import Connection, connected
from coupons.store import invariants


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """After the test, the database must violate no invariant."""
    async with connected(database_url) as connection:
        yield connection
        wrong = [proof for proof in await invariants.prove(connection) if not proof.holds]
        assert not wrong


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Connection]:
    async with connected(database_url) as connection:
        yield connection
