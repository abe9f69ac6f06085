import asyncio

import pytest

from coupons.mail import Envelope
from coupons.smtp import Deferred, Outcome, Refused, Sent, Timeouts, Uncertain, Unreachable
from coupons.smtp.outcomes import PAST_DEADLINE, SHUTTING_DOWN
from tests.smtp_client import MAIL, relays_to
from tests.smtp_server import CUT, HANG, PIPELINING, Act, Script, serving
from tests.waiting import until


async def test_connection_is_used_again_after_a_refusal() -> None:
    """What the relay holds of a refused mail is reset before the next one."""
    script: Script = {"RCPT": ["550 5.1.1 no\r\n", "250 ok\r\n", "450 4.2.1 no\r\n", "250 ok\r\n"]}
    async with serving(script) as server, relays_to(server) as relays:
        outcomes = [type(await relays.send(MAIL)) for _ in range(4)]
    assert outcomes == [Refused, Sent, Deferred, Sent]
    assert server.verbs == [
        ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]
    ]


@pytest.mark.parametrize("ending", [CUT, "421 4.4.2 idle for too long\r\n"])
async def test_connection_that_the_relay_has_ended_is_opened_again(ending: str | Act) -> None:
    """421 or nothing in answer to MAIL on a connection used before is routine, and costs the mail nothing."""
    first: Script = {"MAIL": ["250 ok\r\n", ending]}
    async with serving(first, {}) as server, relays_to(server) as relays:
        assert [type(await relays.send(MAIL)) for _ in range(3)] == [Sent, Sent, Sent]
    assert server.verbs == [
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL"],
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"],
    ]


async def test_connection_is_opened_again_only_once() -> None:
    """A relay that dies at every MAIL is out of reach, not tried for ever."""
    async with (
        serving({"MAIL": ["250 ok\r\n", CUT]}, {"MAIL": CUT}) as server,
        relays_to(server) as relays,
    ):
        assert isinstance(await relays.send(MAIL), Sent)
        assert isinstance(await relays.send(MAIL), Unreachable)
    assert len(server.said) == 2


async def test_refused_reset_is_no_reason_to_lose_a_mail() -> None:
    """The next mail goes over a new connection."""
    script: Script = {"RCPT": ["550 5.1.1 no\r\n", "250 ok\r\n"], "RSET": "502 no\r\n"}
    async with serving(script, {}) as server, relays_to(server) as relays:
        assert [type(await relays.send(MAIL)) for _ in range(2)] == [Refused, Sent]


async def test_late_reply_is_never_taken_for_another_mails() -> None:
    """After a time limit the connection is closed: the reply to one mail cannot become the outcome of the next."""
    timeouts = Timeouts(dot_seconds=0.1)
    slow: Script = {"DOT": HANG}
    next_one: Script = {"DOT": "554 5.6.0 no\r\n"}
    async with serving(slow, next_one) as server, relays_to(server, timeouts=timeouts) as relays:
        assert isinstance(await relays.send(MAIL), Uncertain)
        assert isinstance(await relays.send(MAIL), Refused)
    assert len(server.said) == 2


@pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])
async def test_mail_that_is_begun_is_not_written_after_its_time(way: Script) -> None:
    """Its sender may have been stopped in between, and somebody else be at it; the next goes over a new connection."""
    late: Script = {**way, "DATA": ["354 go\r\n", Act("354 go\r\n", delay=0.1)]}
    outcomes: list[Outcome] = []
    async with serving(late, way) as server, relays_to(server) as relays:
        now = asyncio.get_running_loop().time()
        for deadline in (None, now + 0.09, None):
            relays.submit(MAIL, outcomes.append, deadline=deadline)
        await until(lambda: len(outcomes) == 3)
        assert relays.outage is None
    assert outcomes == [Sent("250 2.0.0 queued"), PAST_DEADLINE, Sent("250 2.0.0 queued")]
    assert len(server.mails) == len(server.said) == 2


async def test_mail_whose_time_is_over_is_not_begun() -> None:
    """It is told when its turn comes; those behind it go on."""
    outcomes: list[Outcome] = []
    async with serving() as server, relays_to(server) as relays:
        now = asyncio.get_running_loop().time()
        for deadline in (now - 1, now - 1, now + 60):
            relays.submit(MAIL, outcomes.append, deadline=deadline)
        await until(lambda: len(outcomes) == 3)
    assert outcomes == [PAST_DEADLINE] * 2 + [Sent("250 2.0.0 queued")]
    assert server.verbs == [["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]]


async def test_connection_ends_after_its_share_of_mails() -> None:
    """Relays that limit mails by connection are left politely before they object."""
    async with serving() as server, relays_to(server, mails_per_connection=2) as relays:
        for _ in range(3):
            assert isinstance(await relays.send(MAIL), Sent)
    assert server.verbs == [
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"],
        ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"],
    ]


async def test_idle_connection_is_closed_and_opened_when_needed() -> None:
    """A relay's connections are not held between sendouts."""
    async with serving() as server, relays_to(server, idle_seconds=0.01) as relays:
        assert isinstance(await relays.send(MAIL), Sent)
        await until(lambda: server.verbs[0][-1] == "QUIT")
        assert isinstance(await relays.send(MAIL), Sent)
    assert len(server.said) == 2


async def test_leaving_hands_back_what_was_not_begun() -> None:
    """Every mail has exactly one outcome: in flight past the moment of grace uncertain, waiting ones not sent."""
    outcomes: list[Outcome] = []
    async with serving({"DOT": HANG}) as server:
        async with relays_to(server, closing_seconds=0) as relays:
            for _ in range(3):
                relays.submit(MAIL, outcomes.append)
            await server.hanging.wait()
        relays.submit(MAIL, outcomes.append)
    assert outcomes == [SHUTTING_DOWN] * 2 + [Uncertain("shutting down"), SHUTTING_DOWN]


async def test_leaving_before_the_dot_sends_nothing() -> None:
    """A mail that was begun but not handed over is as good as not begun."""
    outcomes: list[Outcome] = []
    async with serving({"RCPT": HANG}) as server, relays_to(server, closing_seconds=0) as relays:
        relays.submit(MAIL, outcomes.append)
        await server.hanging.wait()
    assert outcomes == [SHUTTING_DOWN]
    assert server.mails == []


async def test_leaving_lets_a_mail_in_flight_come_to_its_end() -> None:
    """A mail whose reply is a moment away does not become uncertain."""
    outcomes: list[Outcome] = []
    async with serving() as server, relays_to(server) as relays:
        relays.submit(MAIL, outcomes.append)
        await until(lambda: bool(server.said) and "MAIL" in server.verbs[0])
    assert outcomes == [Sent("250 2.0.0 queued")]


async def test_cancelled_caller_does_not_lose_the_relay() -> None:
    """Whoever waits for a mail may go; the mail comes to its end, and the connection serves the next."""
    async with serving() as server, relays_to(server) as relays:
        waiting = asyncio.create_task(relays.send(MAIL))
        await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance(await relays.send(MAIL), Sent)
    assert len(server.mails) == 2


async def test_defect_in_a_report_is_not_swallowed() -> None:
    """A surprise ends neither the other mails nor in silence."""

    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with serving() as server, relays_to(server) as relays:
            relays.submit(MAIL, fail)
            assert isinstance(await relays.send(MAIL), Sent)


async def test_defect_in_an_envelope_has_an_outcome_too() -> None:
    """An address that should never have come here is refused for good, not tried for ever, and the defect is told."""
    with pytest.raises(ValueError, match="prohibited control character"):
        async with serving() as server, relays_to(server) as relays:
            outcome = await relays.send(Envelope.plain("shop@example.org", "a@b\r\nRSET", MAIL.data))
            assert outcome == Refused("internal error: this mail cannot be written")
            assert isinstance(await relays.send(MAIL), Sent)
