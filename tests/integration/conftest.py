"""Fixtures of two connections to a fresh database."""

from collections.abc import AsyncIterator, Iterator

import pytest

from coupons.database import Connection, connect
from coupons.store import invariants
from sandbox.process import ServiceError
from tests import postfix
from tests.session_state import session_state, watched_pools


@pytest.fixture(autouse=True)
def clean_sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if a pooled session keeps settings, locks or rows for its next user."""
    with watched_pools(monkeypatch):
        yield


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """Connect to the database. After the test no invariant may be violated and the session must keep no state."""
    async with connect(database_url) as connection:
        yield connection
        wrong = [proof for proof in await invariants.check(connection) if not proof.ok]
        assert not wrong
        assert not await session_state(connection)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def postfix_is_installed() -> None:
    """Skip the test if Postfix is missing and cannot be installed."""
    try:
        postfix.require()
    except ServiceError as error:
        pytest.skip(str(error))
