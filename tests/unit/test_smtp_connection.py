import asyncio

import pytest

from coupons.mail import Envelope
from coupons.smtp import Deferred, Outcome, Refused, Sent, Timeouts, Uncertain, Unreachable
from coupons.smtp.outcomes import PAST_DEADLINE, SHUTTING_DOWN
from tests.smtp_client import MAIL, relays_to
from tests.smtp_server import CUT, HANG, PIPELINING, Act, Script, serving
from tests.waiting import until


async def test_a_connection_is_used_again_after_a_refusal() -> None:
    """RSET discards the unfinished mail at the relay before the next mail begins."""
    script: Script = {"RCPT": ["550 5.1.1 no\r\n", "250 ok\r\n", "450 4.2.1 no\r\n", "250 ok\r\n"]}
    async with serving(script) as server, relays_to(server) as relays:
        outcomes = [type(await relays.send(MAIL)) for _ in range(4)]
    assert outcomes == [Refused, Sent, Deferred, Sent]
    assert server.verbs == [
        ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]
    ]


@pytest.mark.parametrize("ending", [CUT, "421 4.4.2 idle for too long\r\n"])
async def test_a_connection_that_the_relay_ended_is_replaced(ending: str | Act) -> None:
    """On a connection that was used before, 421 or no reply to MAIL is normal and does not affect the mail."""
    first: Script = {"MAIL": ["250 ok\r\n", ending]}
    async with serving(first, {}) as server, relays_to(server) as relays:
        assert [type(await relays.send(MAIL)) for _ in range(3)] == [Sent, Sent, Sent]
    assert server.verbs == [
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL"],
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"],
    ]


async def test_a_dead_connection_is_replaced_only_once() -> None:
    """A relay that dies at every MAIL is unreachable; its mail is not retried forever."""
    async with (
        serving({"MAIL": ["250 ok\r\n", CUT]}, {"MAIL": CUT}) as server,
        relays_to(server) as relays,
    ):
        assert isinstance(await relays.send(MAIL), Sent)
        assert isinstance(await relays.send(MAIL), Unreachable)
    assert server.connections == 2


async def test_a_refused_rset_loses_no_mail() -> None:
    """If RSET is refused, the next mail uses a new connection."""
    script: Script = {"RCPT": ["550 5.1.1 no\r\n", "250 ok\r\n"], "RSET": "502 no\r\n"}
    async with serving(script, {}) as server, relays_to(server) as relays:
        assert [type(await relays.send(MAIL)) for _ in range(2)] == [Refused, Sent]


async def test_a_late_reply_is_never_paired_with_another_mail() -> None:
    """After a timeout the connection is closed, so a late reply cannot become the outcome of the next mail."""
    timeouts = Timeouts(dot_seconds=0.1)
    slow: Script = {"DOT": HANG}
    next_one: Script = {"DOT": "554 5.6.0 no\r\n"}
    async with serving(slow, next_one) as server, relays_to(server, timeouts=timeouts) as relays:
        assert isinstance(await relays.send(MAIL), Uncertain)
        assert isinstance(await relays.send(MAIL), Refused)
    assert server.connections == 2


@pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])
async def test_a_begun_mail_is_not_written_after_its_deadline(way: Script) -> None:
    """After a long interruption of the process, another worker may have the batch, so the mail must not be sent."""
    late: Script = {**way, "DATA": ["354 go\r\n", Act("354 go\r\n", delay=0.1)]}
    outcomes: list[Outcome] = []
    async with serving(late, way) as server, relays_to(server) as relays:
        now = asyncio.get_running_loop().time()
        for deadline in (None, now + 0.09, None):
            relays.submit(MAIL, outcomes.append, deadline=deadline)
        await until(lambda: len(outcomes) == 3)
        assert relays.outage is None
    assert outcomes == [Sent("250 2.0.0 queued"), PAST_DEADLINE, Sent("250 2.0.0 queued")]
    assert len(server.mails) == server.connections == 2


async def test_a_mail_past_its_deadline_is_not_begun() -> None:
    """The mail is reported when its turn comes, and later mails are sent."""
    outcomes: list[Outcome] = []
    async with serving() as server, relays_to(server) as relays:
        now = asyncio.get_running_loop().time()
        for deadline in (now - 1, now - 1, now + 60):
            relays.submit(MAIL, outcomes.append, deadline=deadline)
        await until(lambda: len(outcomes) == 3)
    assert outcomes == [PAST_DEADLINE] * 2 + [Sent("250 2.0.0 queued")]
    assert server.verbs == [["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]]


async def test_a_connection_ends_after_its_number_of_mails() -> None:
    """The connection ends with QUIT before a relay rejects a mail because of its own limit per connection."""
    async with serving() as server, relays_to(server, mails_per_connection=2) as relays:
        for _ in range(3):
            assert isinstance(await relays.send(MAIL), Sent)
    assert server.verbs == [
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"],
        ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"],
    ]


async def test_an_idle_connection_is_closed_and_opened_when_needed() -> None:
    """No connection stays open between sendouts, and a later mail opens a new one."""
    async with serving() as server, relays_to(server, idle_seconds=0.01) as relays:
        assert isinstance(await relays.send(MAIL), Sent)
        await until(lambda: server.verbs[0][-1] == "QUIT")
        assert isinstance(await relays.send(MAIL), Sent)
    assert server.connections == 2


async def test_closing_reports_queued_mails_as_not_sent() -> None:
    """Every mail has exactly one outcome: queued mails are not sent, and a mail still in flight at the end is
    uncertain.
    """
    outcomes: list[Outcome] = []
    async with serving({"DOT": HANG}) as server:
        async with relays_to(server, closing_seconds=0) as relays:
            for _ in range(3):
                relays.submit(MAIL, outcomes.append)
            await server.hanging.wait()
        relays.submit(MAIL, outcomes.append)
    assert outcomes == [SHUTTING_DOWN] * 2 + [Uncertain("shutting down"), SHUTTING_DOWN]


async def test_closing_before_the_dot_sends_nothing() -> None:
    """A mail that was begun, but whose body was not written, is reported as not sent."""
    outcomes: list[Outcome] = []
    async with serving({"RCPT": HANG}) as server, relays_to(server, closing_seconds=0) as relays:
        relays.submit(MAIL, outcomes.append)
        await server.hanging.wait()
    assert outcomes == [SHUTTING_DOWN]
    assert server.mails == []


async def test_closing_waits_for_mails_in_flight() -> None:
    """A mail whose reply arrives in time does not become uncertain."""
    outcomes: list[Outcome] = []
    async with serving() as server, relays_to(server) as relays:
        relays.submit(MAIL, outcomes.append)
        await until(lambda: bool(server.commands) and "MAIL" in server.verbs[0])
    assert outcomes == [Sent("250 2.0.0 queued")]


async def test_a_cancelled_caller_does_not_affect_the_connection() -> None:
    """The mail gets its outcome, and the connection sends the next one."""
    async with serving() as server, relays_to(server) as relays:
        waiting = asyncio.create_task(relays.send(MAIL))
        await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance(await relays.send(MAIL), Sent)
    assert len(server.mails) == 2


async def test_an_error_in_a_report_is_not_swallowed() -> None:
    """The other mails are sent, and the error is raised when the relays are closed."""

    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with serving() as server, relays_to(server) as relays:
            relays.submit(MAIL, fail)
            assert isinstance(await relays.send(MAIL), Sent)


async def test_an_invalid_envelope_has_an_outcome_too() -> None:
    """A mail with an invalid address is refused, and the error is raised when the relays are closed."""
    with pytest.raises(ValueError, match="prohibited control character"):
        async with serving() as server, relays_to(server) as relays:
            outcome = await relays.send(Envelope.plain("shop@example.org", "a@b\r\nRSET", MAIL.data))
            assert outcome == Refused("internal error: this mail cannot be written")
            assert isinstance(await relays.send(MAIL), Sent)
