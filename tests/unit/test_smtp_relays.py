import asyncio
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from coupons.smtp import Deferred, Outcome, Refused, Relays, Sent, SmtpAddress, Timeouts, Uncertain, Unreachable
from coupons.smtp.breaker import FAILURES_IN_A_ROW, Fault, Trouble
from coupons.smtp.congestion import Congestion
from coupons.smtp.outcomes import CANCELLED
from tests.smtp_client import MAIL, echoed, mail_to, outcomes_of, relays_to
from tests.smtp_server import CUT, EHLO, HANG, PIPELINING, Act, Script, serving
from tests.waiting import until

QUEUED = Sent("250 2.0.0 queued")
CLOSED: Script = {"GREETING": "554 5.7.1 closed\r\n"}
NAMES = [f"r{number}" for number in range(50)]


async def test_mails_use_all_connections() -> None:
    """Each mail is sent once, and the allowed number of connections is used."""
    async with serving() as server, relays_to(server, connections=3) as relays:
        outcomes = await outcomes_of(relays, *NAMES)
    assert set(outcomes.values()) == {QUEUED}
    assert server.connections == 3
    assert sorted(server.accepted) == sorted(f"TO:<{name}@example.org>" for name in NAMES)


async def test_no_more_connections_than_mails_are_opened() -> None:
    """Two mails do not open ten connections."""
    async with serving() as server, relays_to(server, connections=10) as relays:
        await outcomes_of(relays, "a", "b")
    assert server.connections == 2


async def test_a_relay_that_accepts_fewer_connections_gets_fewer() -> None:
    """While one connection works, a refused connection affects no mail and is not retried at once."""
    refusing: Script = {"GREETING": "421 4.7.0 too many connections\r\n"}
    async with serving({}, refusing) as server, relays_to(server, connections=4, backoff_seconds=60) as relays:
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
        assert relays.outage is None
    assert server.connections == 4


async def test_backpressure_halves_the_connections() -> None:
    """A relay that defers mails for lack of resources gets fewer connections; the others end with QUIT."""
    congested: Script = {"DATA": ["452 4.3.1 no space\r\n", "354 go\r\n"]}
    async with (
        serving(*[congested] * 4) as server,
        relays_to(server, connections=4) as relays,
    ):
        outcomes = await outcomes_of(relays, *NAMES)
        await until(lambda: sum("QUIT" in verbs for verbs in server.verbs) >= 2)
    assert set(map(type, outcomes.values())) == {Sent, Deferred}


async def test_connections_grow_back() -> None:
    """The number of connections grows by one per second while the relay accepts mails."""
    congested: Script = {"DATA": ["452 4.3.1 no space\r\n", "354 go\r\n"]}
    async with serving(congested, congested, {}) as server, relays_to(server, connections=2) as relays:
        await outcomes_of(relays, *NAMES)
        assert len(relays._relays[0].connections.active) == 1
        while len(relays._relays[0].connections.active) < 2:
            assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
    assert server.connections == 3


async def test_full_mailboxes_are_not_backpressure() -> None:
    """The reply 4.2.2 concerns one recipient, so the relay keeps its connections."""
    full: Script = {"RCPT": "452 4.2.2 mailbox full\r\n"}
    async with serving(full) as server, relays_to(server, connections=4) as relays:
        await outcomes_of(relays, *NAMES)
        assert not any("QUIT" in verbs for verbs in server.verbs)
    assert server.connections == 4


# --- the breaker ------------------------------------------------------------------------------------------------------


async def test_an_outage_is_reported_for_every_mail_at_once() -> None:
    """During the back-off, queued mails are reported without a connection attempt for each of them."""
    async with serving(CLOSED) as server, relays_to(server, connections=2, backoff_seconds=60) as relays:
        assert relays.outage is None
        outcomes = await outcomes_of(relays, *NAMES)
        outage = relays.outage
        assert outage is not None
        reason = f"relay 127.0.0.1:{server.port} refuses connections since {outage.since:%H:%M} UTC: "
        reason += "the relay refuses the connection: 554 5.7.1"
        assert outage.reason == reason
        assert 29 < outage.retry_seconds <= 60
        assert set(outcomes.values()) == {Unreachable(reason)}
        assert await relays.send(MAIL) == Unreachable(reason)
    assert server.connections == 2


async def test_one_connection_probes_after_an_outage() -> None:
    """If the connection that tries again fails, the outage continues with its original start time."""
    async with (
        serving(CLOSED, CLOSED, CLOSED, {}) as server,
        relays_to(server, connections=2, backoff_seconds=0.5) as relays,
    ):
        await outcomes_of(relays, *NAMES)
        first = relays.outage
        await until(lambda: relays.outage is None)
        await outcomes_of(relays, *NAMES)
        second = relays.outage
        await until(lambda: relays.outage is None)
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
        assert relays.outage is None
    assert first is not None
    assert second is not None
    assert first.since == second.since
    assert 3 < server.connections <= 5


async def test_a_relay_that_dies_at_the_first_mail_is_out_of_rotation() -> None:
    """A connection that ends before its first mail counts as refused."""
    async with serving({"MAIL": CUT}) as server, relays_to(server, backoff_seconds=60) as relays:
        outcomes = await outcomes_of(relays, *NAMES)
    assert set(map(type, outcomes.values())) == {Unreachable}
    assert server.connections == 1


LOST = "the (relay closed the connection|connection was lost)"
PATIENCE = Timeouts(command_seconds=0.1, dot_seconds=0.1)
FAILING = pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ({"DOT": CUT}, LOST),
        ({"DOT": HANG}, "no reply to the final dot in time"),
        ({"RCPT": CUT}, LOST),
        ({"MAIL": "421 4.3.2 too busy\r\n"}, "421 4.3.2"),
        ({"RCPT": "421 too busy\r\n"}, "421"),
        ({"MAIL": "451 4.3.0 no\r\n"}, "451 4.3.0"),
        ({"DATA": "452 4.3.1 no space\r\n"}, "452 4.3.1"),
        ({"DOT": "451 4.3.0 no\r\n"}, "451 4.3.0"),
    ],
)


@FAILING
@pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])
async def test_a_relay_that_fails_mail_after_mail_is_out_of_rotation(failing: Script, reason: str, way: Script) -> None:
    """Mails in flight get their outcomes; no other mail is handed to the relay."""
    async with (
        serving({**way, **failing}) as server,
        relays_to(server, connections=2, backoff_seconds=60, timeouts=PATIENCE) as relays,
    ):
        outcomes = await outcomes_of(relays, *NAMES)
        outage = relays.outage
        assert outage is not None
        assert re.fullmatch(rf"relay 127\.0\.0\.1:\d+ fails since \d\d:\d\d UTC: {reason}", outage.reason)
        assert await relays.send(MAIL) == Unreachable(outage.reason)
    failed = [outcome for outcome in outcomes.values() if not isinstance(outcome, Unreachable)]
    assert FAILURES_IN_A_ROW <= len(failed) <= FAILURES_IN_A_ROW + 3
    assert server.connections <= FAILURES_IN_A_ROW + 2


async def test_one_connection_probes_after_the_backoff() -> None:
    """If the next mail fails, the back-off doubles.

    If it is sent, the back-off ends and all connections are allowed.
    """
    failing: Script = {"DOT": CUT}
    slowly: Script = {"DOT": Act("250 2.0.0 queued\r\n", delay=0.01)}
    async with (
        serving(*[failing] * (FAILURES_IN_A_ROW + 1), slowly) as server,
        relays_to(server, backoff_seconds=0.02) as relays,
    ):
        relay = relays._relays[0]
        await outcomes_of(relays, *NAMES)
        first, backoff = relays.outage, relay.breaker.backoff_seconds
        assert (server.connections, backoff) == (FAILURES_IN_A_ROW, 0.02)
        relay.congestion = Congestion(3)
        await until(lambda: relays.outage is None)
        await outcomes_of(relays, *NAMES)
        second = relays.outage
        assert (server.connections, relay.breaker.backoff_seconds) == (FAILURES_IN_A_ROW + 1, 0.04)
        await until(lambda: relays.outage is None)
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
        assert relay.breaker.backoff_seconds == 0
        assert relays.outage is None
    assert first is not None
    assert second is not None
    assert first.since == second.since
    assert server.connections == FAILURES_IN_A_ROW + 4


async def test_a_refusal_does_not_end_the_backoff() -> None:
    """Only a sent mail ends the back-off, because a relay without disk space still refuses unknown recipients."""
    half: Script = {"DOT": "452 4.3.1 no space\r\n"}
    knowing: Script = {**half, "RCPT": ["550 5.1.1 no\r\n", "250 ok\r\n"]}
    async with serving(half, knowing) as server, relays_to(server, backoff_seconds=0.02) as relays:
        await outcomes_of(relays, *NAMES)
        await until(lambda: relays.outage is None)
        outcomes = await outcomes_of(relays, *NAMES)
        assert relays._relays[0].breaker.backoff_seconds == 0.04
    assert Counter(map(type, outcomes.values())) == {Refused: 1, Deferred: 1, Unreachable: 48}


async def test_a_sent_mail_ends_a_row_of_failures() -> None:
    """A relay that sometimes accepts a mail stays in rotation, even if it defers most mails."""
    most: Script = {"DOT": ([*["451 4.3.0 no\r\n"] * (FAILURES_IN_A_ROW - 1), "250 2.0.0 queued\r\n"]) * 10}
    async with serving(most) as server, relays_to(server) as relays:
        outcomes = await outcomes_of(relays, *NAMES)
        assert relays.outage is None
    assert Counter(map(type, outcomes.values())) == {Deferred: 40, Sent: 10}


@pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])
@pytest.mark.parametrize("reply", ["450 4.7.1 greylisted\r\n", "452 4.2.2 mailbox full\r\n"])
async def test_deferred_recipients_do_not_count_against_the_relay(reply: str, way: Script) -> None:
    """Greylisting of recipients does not take the relay out of rotation."""
    async with serving({**way, "RCPT": reply, "DATA": "451 no recipient\r\n"}) as server, relays_to(server) as relays:
        outcomes = await outcomes_of(relays, *NAMES)
        assert relays.outage is None
    assert outcomes == {name: echoed(Deferred(reply.strip()), f"{name}@example.org") for name in NAMES}


@pytest.mark.parametrize("ending", [CUT, "421 4.4.2 enough\r\n"])
async def test_a_relay_may_end_connections_between_mails(ending: str | Act) -> None:
    """On a connection that was used before, 421 or no reply to MAIL is normal, however often it happens."""
    for way in ({}, PIPELINING):
        async with serving({**way, "MAIL": ["250 ok\r\n", ending]}) as server, relays_to(server) as relays:
            assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
            assert relays.outage is None
        assert server.connections in (50, 51)


async def test_connections_of_a_failing_relay_finish_their_mails() -> None:
    """The connections accept no more mails, and the outcomes of their last mails do not affect the breaker."""
    busy: Script = {"DOT": Act("250 2.0.0 queued\r\n", delay=0.3)}
    failing: Script = {"DOT": CUT}
    async with serving(busy, failing) as server, relays_to(server, connections=2, backoff_seconds=60) as relays:
        outcomes = await outcomes_of(relays, *NAMES)
        assert relays.outage is not None
    assert Counter(map(type, outcomes.values())) == {Sent: 1, Uncertain: FAILURES_IN_A_ROW, Unreachable: 44}
    assert server.verbs[0] == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


async def test_a_connection_that_opens_too_late_accepts_no_mail() -> None:
    """If a relay leaves the rotation while a connection opens, the mails are sent through the other relay."""
    late: Script = {"GREETING": Act("220 ready\r\n", delay=0.1)}
    slowly: Script = {"DOT": Act("250 2.0.0 queued\r\n", delay=0.01)}
    async with (
        serving({"DOT": "451 4.3.0 no\r\n"}, late) as bad,
        serving(slowly) as good,
        relays_to(bad, good, connections=3, backoff_seconds=60) as relays,
    ):
        outcomes = await outcomes_of(relays, *NAMES)
        assert relays.outage is None
    assert Counter(map(type, outcomes.values())) == {Sent: 45, Deferred: FAILURES_IN_A_ROW}
    assert bad.verbs[1] == ["EHLO", "QUIT"]


async def test_an_impossible_host_name_is_an_outage() -> None:
    """A host name that is invalid in DNS causes an outage and not an internal error."""
    async with Relays(SmtpAddress.parse_all(f"smtps://{'a' * 70}.example")) as relays:
        assert isinstance(await relays.send(MAIL), Unreachable)


async def test_check_names_the_unreachable_relay() -> None:
    """`check` returns the first unreachable relay. A reachable relay gets QUIT and no mail."""
    async with serving() as open_one, serving(CLOSED) as closed:
        assert await relays_to(open_one).check() is None
        assert await relays_to(open_one, closed).check() == (
            f"relay 127.0.0.1:{closed.port}: the relay refuses the connection: 554 5.7.1 (554 5.7.1 closed)"
        )
    assert open_one.verbs == [["EHLO", "QUIT"]] * 2


# --- several relays ---------------------------------------------------------------------------------------------------


async def test_relays_share_the_mails() -> None:
    """Each relay sends some of the mails."""
    async with serving(PIPELINING) as one, serving(PIPELINING) as other, relays_to(one, other, connections=4) as relays:
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
    assert len(one.accepted) + len(other.accepted) == len(NAMES)
    assert one.accepted
    assert other.accepted
    assert (one.connections, other.connections) == (2, 2)


@pytest.mark.parametrize("ending", [Act(EHLO, then="cut"), f"{EHLO}421 no\r\n"])
async def test_a_relay_that_closes_at_once_is_unreachable(ending: str | Act) -> None:
    """The outcome is the same whether the end is noticed before or after the first mail is begun."""
    for _ in range(20):
        async with serving({"EHLO": ending}) as server, relays_to(server, backoff_seconds=60) as relays:
            outcomes = await outcomes_of(relays, *NAMES)
        assert set(map(type, outcomes.values())) == {Unreachable}


@pytest.mark.parametrize("trouble", [CLOSED, {"MAIL": CUT}, {"EHLO": CUT}])
async def test_mails_of_a_failing_relay_go_through_the_other(trouble: Script) -> None:
    """Every mail is sent, and there is no outage while one relay works."""
    async with serving(trouble) as bad, serving() as good, relays_to(bad, good, connections=4) as relays:
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
        assert relays.outage is None
    assert len(good.accepted) == len(NAMES)


async def test_a_recovered_relay_is_used_again() -> None:
    """The relay is used again without a newly submitted mail."""
    slowly: Script = {"DOT": Act("250 2.0.0 queued\r\n", delay=0.01)}
    async with serving(CLOSED, slowly) as bad, serving(slowly) as good, relays_to(bad, good, connections=2) as relays:
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
    assert bad.accepted
    assert len(good.accepted) + len(bad.accepted) == len(NAMES)


async def test_an_outage_names_all_relays() -> None:
    """The reason of an outage contains each relay with its own reason."""
    async with (
        serving(CLOSED) as one,
        serving({"GREETING": "421 no\r\n"}) as other,
        relays_to(one, other, connections=2, backoff_seconds=60) as relays,
    ):
        outcomes = await outcomes_of(relays, *NAMES)
    reasons = {outcome.explanation for outcome in outcomes.values()}
    assert len(reasons) == 1
    reason = reasons.pop()
    assert f"relay 127.0.0.1:{one.port} refuses" in reason
    assert f"relay 127.0.0.1:{other.port} refuses" in reason


async def test_a_hanging_relay_is_out_of_rotation() -> None:
    """Only the mails that the hanging relay holds are lost; the others go through the other relay."""
    async with (
        serving({"DATA": HANG}) as slow,
        serving() as good,
        relays_to(slow, good, connections=2, backoff_seconds=60, timeouts=PATIENCE) as relays,
    ):
        first = await outcomes_of(relays, *NAMES)
        second = await outcomes_of(relays, *NAMES)
    assert Counter(map(type, first.values())) == {Sent: 49, Deferred: 1}
    assert set(map(type, second.values())) == {Sent}
    assert slow.connections == 1


async def test_a_relay_much_slower_than_another_is_out_of_rotation() -> None:
    """The slow relay's connections finish their mails and QUIT; later, one connection tries again."""
    async with (
        serving(PIPELINING) as slow,
        serving(PIPELINING) as good,
        relays_to(slow, good, connections=2) as relays,
    ):
        await outcomes_of(relays, *NAMES)
        relays._relays[0].on_mail_answered(asyncio.get_running_loop().time(), 60.0)
        assert relays._relays[0].is_out_of_rotation
        assert relays.outage is None
        await until(lambda: slow.verbs[0][-1] == "QUIT")
        await until(lambda: not relays._relays[0].is_out_of_rotation)
        taken = len(slow.accepted)
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}
        assert len(slow.accepted) > taken


async def test_a_slow_relay_is_better_than_none() -> None:
    """When the fast relay fails, the slow one is used at once."""
    async with serving() as slow, relays_to(slow, slow, connections=2, backoff_seconds=60) as relays:
        await outcomes_of(relays, *NAMES)
        for relay in relays._relays:
            fault = Fault.SLOW if relay is relays._relays[0] else Fault.CLOSED
            relay.breaker.trouble = Trouble(fault, "a reason", datetime.now(UTC))
            relay.close()
            relay._back_off(asyncio.get_running_loop().time())
        assert relays.outage is not None
        assert set((await outcomes_of(relays, *NAMES)).values()) == {QUEUED}


# --- reports ----------------------------------------------------------------------------------------------------------


async def test_cancelling_affects_only_queued_mails_of_one_owner() -> None:
    """The queued mails of other owners keep waiting, and begun mails get their outcomes."""
    outcomes: dict[str, Outcome] = {}

    def into(name: str) -> Callable[[Outcome], None]:
        return lambda outcome: outcomes.update({name: outcome})

    mine, other = object(), object()
    async with serving({"DOT": Act("250 2.0.0 queued\r\n", delay=0.1)}) as server, relays_to(server) as relays:
        for name, owner in [("m1", mine), ("m2", mine), ("o1", other), ("m3", mine), ("n1", None)]:
            relays.submit(mail_to(name), into(name), owner)
        await until(lambda: bool(server.commands) and "DATA" in server.verbs[0])
        relays.cancel_for(mine)
        assert outcomes == {"m2": CANCELLED, "m3": CANCELLED}
        await until(lambda: len(outcomes) == 5)
    assert [outcomes[name] for name in ("m1", "o1", "n1")] == [QUEUED] * 3


async def test_a_report_may_submit_the_next_mail() -> None:
    """A report may do so in any state of the relays, and no report is called from inside another one."""
    depth = deepest = 0
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        outcomes.append(outcome)
        if len(outcomes) < 100:
            relays.submit(MAIL, report)
        depth -= 1

    for script in (PIPELINING, {}, CLOSED):
        outcomes.clear()
        async with serving(script) as server, relays_to(server, connections=2) as relays:
            relays.submit(MAIL, report)
            relays.submit(MAIL, report)
            await until(lambda: len(outcomes) == 101)
    assert deepest == 1


async def test_every_mail_is_reported_once_while_connections_die() -> None:
    """Each mail is reported exactly once, although the relay dies after every few mails, in every phase."""
    dying: list[Script] = [
        {**PIPELINING, verb: [reply] * 3 + [CUT]}
        for verb, reply in [
            ("MAIL", "250 ok\r\n"),
            ("RCPT", "250 ok\r\n"),
            ("DATA", "354 go\r\n"),
            ("DOT", "250 ok\r\n"),
        ]
    ]
    async with serving(*dying * 10, PIPELINING) as server, relays_to(server, connections=3) as relays:
        outcomes = await outcomes_of(relays, *(f"r{number}" for number in range(200)))
        await asyncio.sleep(0)
    sent = {f"TO:<{name}@example.org>" for name, outcome in outcomes.items() if isinstance(outcome, Sent)}
    assert sent <= set(server.accepted)
    assert len(set(server.accepted)) == len(server.accepted)
    assert len(outcomes) == 200
