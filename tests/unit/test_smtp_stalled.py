"""Stalled connections: the relay, or a device in between, no longer knows the connection."""

import pytest

from coupons.smtp import Outcome, Sent, Timeouts, Uncertain, connection
from tests.smtp_client import mail_to, outcomes_of, relays_to
from tests.smtp_server import HANG, PIPELINING, Act, Script, serving
from tests.waiting import until

BOTH_WAYS = pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])


@BOTH_WAYS
async def test_a_stalled_connection_is_replaced(monkeypatch: pytest.MonkeyPatch, way: dict[str, str]) -> None:
    """The mail on the stalled connection waits for its reply until the timeout; other mails use a new connection."""
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.1)
    forgotten: Script = {**way, "DOT": HANG}
    async with serving(forgotten, way) as server, relays_to(server, timeouts=Timeouts(dot_seconds=1)) as relays:
        outcomes = await outcomes_of(relays, *(f"r{number}" for number in range(5)))
    kinds = [type(outcome) for outcome in outcomes.values()]
    assert sorted(kind.__name__ for kind in kinds) == ["Sent"] * 4 + ["Uncertain"]
    assert kinds[:3] == [Sent] * 3  # the mail begun after it waits with it
    assert server.connections == 2


@BOTH_WAYS
async def test_stalled_connections_do_not_accumulate(monkeypatch: pytest.MonkeyPatch, way: dict[str, str]) -> None:
    """A relay that never replies has at most twice its share of connections."""
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.05)
    patience = Timeouts(dot_seconds=0.5)
    async with serving({**way, "DOT": HANG}) as server, relays_to(server, connections=2, timeouts=patience) as relays:
        outcomes = await outcomes_of(relays, *(f"r{number}" for number in range(4)))
        assert server.connections <= 4
    assert {type(outcome) for outcome in outcomes.values()} == {Uncertain}


@BOTH_WAYS
async def test_a_recovered_connection_is_used_again(monkeypatch: pytest.MonkeyPatch, way: dict[str, str]) -> None:
    """A relay that is only slow loses no mail, and its connection sends further mails."""
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.05)
    slow: Script = {**way, "DOT": Act("250 2.0.0 queued\r\n", delay=0.2)}
    async with serving(slow) as server, relays_to(server) as relays:
        outcomes = await outcomes_of(relays, *(f"r{number}" for number in range(6)))
        await until(lambda: not server.hanging.is_set())
    assert {type(outcome) for outcome in outcomes.values()} == {Sent}
    assert len(server.accepted) == 6


@BOTH_WAYS
async def test_the_owners_of_stalled_mails_are_known(monkeypatch: pytest.MonkeyPatch, way: dict[str, str]) -> None:
    """`stalled_owners` lists the owners of mails on a stalled connection until these mails have their outcomes."""
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.1)
    outcomes: list[Outcome] = []
    async with (
        serving({**way, "DOT": HANG}, way) as server,
        relays_to(server, timeouts=Timeouts(dot_seconds=1)) as relays,
    ):
        for owner in ("first", *["second"] * 4):
            relays.submit(mail_to("ada"), outcomes.append, owner=owner)
        assert relays.stalled_owners() == []
        await until(lambda: len(outcomes) >= 3)
        assert relays.stalled_owners() == (["first", "second"] if way else ["first"])
        await until(lambda: len(outcomes) == 5)
        assert relays.stalled_owners() == []


@BOTH_WAYS
async def test_a_retiring_connection_waits_for_a_late_reply(
    monkeypatch: pytest.MonkeyPatch, way: dict[str, str]
) -> None:
    """A retiring connection can stall too, and a reply that arrives later still counts."""
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.1)
    outcomes: list[Outcome] = []
    async with serving({**way, "DOT": Act("250 2.0.0 queued\r\n", delay=2)}) as server, relays_to(server) as relays:
        relays.submit(mail_to("ada"), outcomes.append, owner="an owner")
        await until(lambda: bool(server.mails))
        relays._relays[0].close()
        await until(lambda: relays.stalled_owners() == ["an owner"])
        await until(lambda: bool(outcomes))
    assert [type(outcome) for outcome in outcomes] == [Sent]
