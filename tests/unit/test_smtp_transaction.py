import asyncio
import re

import pytest

from coupons.mail import Envelope
from coupons.smtp import (
    Deferred,
    Limits,
    Outcome,
    Refused,
    Relays,
    Sent,
    SmtpAddress,
    Subject,
    Timeouts,
    Uncertain,
    Unreachable,
)
from tests.smtp_client import MAIL, SENT_AS, echoed, mail_to, outcome_of, outcomes_of, relays_to
from tests.smtp_server import CUT, HANG, PIPELINING, Act, Script, serving
from tests.waiting import until

BOTH_WAYS = pytest.mark.parametrize("way", [{}, PIPELINING], ids=["lock-step", "pipelining"])


@BOTH_WAYS
async def test_a_mail_is_sent_completely(way: Script) -> None:
    """Dots are stuffed, the final dot has its own line, and RET=HDRS keeps the codes out of bounces."""
    async with serving(way) as server, relays_to(server) as relays:
        assert await relays.send(MAIL) == Sent("250 2.0.0 queued")
    eight_bit = "" if way else " BODY=8BITMIME"
    assert server.commands == [
        [
            "EHLO shop.example",
            f"MAIL FROM:<shop@example.org>{eight_bit} RET=HDRS",
            "RCPT TO:<ada@example.org>",
            "DATA",
            "QUIT",
        ]
    ]
    assert server.mails == [SENT_AS]


async def test_extensions_are_used_only_if_offered() -> None:
    """A relay without extensions gets a MAIL command without parameters."""
    async with serving({"EHLO": "250 relay.example\r\n"}) as server, relays_to(server) as relays:
        assert await relays.send(MAIL) == Sent("250 2.0.0 queued")
    assert server.commands[0][1] == "MAIL FROM:<shop@example.org>"


@pytest.mark.parametrize("offered", [True, False])
async def test_a_mail_is_encoded_for_the_relay(offered: bool) -> None:
    """A mail is sent with 8-bit bytes only if the relay offers 8BITMIME."""
    envelope = Envelope(
        "shop@example.org", "ada@example.org", lambda eight_bit: b"8\r\n.\r\n" if eight_bit else b"7\r\n.\r\n"
    )
    script: Script = {} if offered else {"EHLO": "250 relay.example\r\n"}
    async with serving(script) as server, relays_to(server) as relays:
        await relays.send(envelope)
    assert server.mails == [b"8\r\n.\r\n" if offered else b"7\r\n.\r\n"]


async def test_a_non_ascii_address_needs_smtputf8() -> None:
    """SMTPUTF8 is used if it is offered and needed.

    If it is needed and not offered, the mail is refused without being sent.
    """
    envelope = Envelope("shop@example.org", "jörg@example.org", lambda _: b"Hi\r\n.\r\n", utf8=True)
    offering: Script = {"EHLO": "250-relay.example\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n"}
    async with serving(offering) as server, relays_to(server) as relays:
        assert isinstance(await relays.send(envelope), Sent)
        assert isinstance(await relays.send(MAIL), Sent)
    said = [line for line in server.commands[0] if line.startswith(("MAIL", "RCPT"))]
    assert said[0] == "MAIL FROM:<shop@example.org> BODY=8BITMIME SMTPUTF8"
    assert said[1].encode("latin-1").decode() == "RCPT TO:<jörg@example.org>"
    assert said[2] == "MAIL FROM:<shop@example.org> BODY=8BITMIME"
    outcome = await outcomes_with(envelope, {})
    assert outcome == Refused("553 5.6.7 the address needs SMTPUTF8, and the relay does not offer SMTPUTF8")


async def outcomes_with(envelope: Envelope, script: Script) -> Outcome:
    async with serving(script) as server, relays_to(server) as relays:
        outcome = await relays.send(envelope)
        assert isinstance(await relays.send(mail_to("next")), Sent)
    return outcome


@pytest.mark.parametrize(
    ("size", "kind"), [(len(MAIL.data), Sent), (len(MAIL.data) - 1, Refused), (0, Sent)], ids=["fits", "large", "any"]
)
async def test_a_mail_larger_than_the_announced_size_is_refused(size: int, kind: type[Outcome]) -> None:
    """The size is that of the mail, without the dots that SMTP adds; a size of 0 means no limit."""
    script: Script = {"EHLO": f"250-relay.example\r\n250-PIPELINING\r\n250 SIZE {size}\r\n"}
    async with serving(script) as server, relays_to(server) as relays:
        assert isinstance(await relays.send(MAIL), kind)
    assert len(server.mails) == (kind is Sent)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ({"MAIL": "451 4.7.1 later\r\n"}, Deferred("451 4.7.1 later")),
        ({"MAIL": "421 4.3.2 closing\r\n"}, Deferred("421 4.3.2 closing")),
        ({"MAIL": "550 5.1.8 who are you\r\n"}, Refused("550 5.1.8 who are you", Subject.SENDER)),
        ({"MAIL": "530 5.7.0 authenticate\r\n"}, Refused("530 5.7.0 authenticate", Subject.ACCOUNT)),
        ({"RCPT": "450 4.2.1 mailbox busy\r\n"}, Deferred("450 4.2.1 mailbox busy")),
        ({"RCPT": "421 closing\r\n"}, Deferred("421 closing")),
        ({"RCPT": "550 5.1.1 no such mailbox\r\n"}, Refused("550 5.1.1 no such mailbox")),
        ({"RCPT": "550 no such mailbox\r\n"}, Refused("550 no such mailbox", Subject.SENDER_OR_RECIPIENT)),
        ({"RCPT": "501 5.1.3 bad address\r\n"}, Refused("501 5.1.3 bad address")),
        ({"RCPT": "550 5.7.1 relaying denied\r\n"}, Refused("550 5.7.1 relaying denied", Subject.SENDER_OR_RECIPIENT)),
        ({"RCPT": "535 no\r\n"}, Refused("535 no", Subject.ACCOUNT)),
        ({"DATA": "452 4.3.1 disk full\r\n"}, Deferred("452 4.3.1 disk full")),
        ({"DATA": "554 5.5.1 no valid recipients\r\n"}, Refused("554 5.5.1 no valid recipients", Subject.MESSAGE)),
        ({"DOT": "451 4.3.0 disk full\r\n"}, Deferred("451 4.3.0 disk full")),
        ({"DOT": "421 4.3.2 closing\r\n"}, Deferred("421 4.3.2 closing")),
        ({"DOT": "554 5.6.0 spam\r\n"}, Refused("554 5.6.0 spam", Subject.MESSAGE)),
        ({"DOT": "250-2.0.0 queued\r\n250 as \x1b[31m7\r\n"}, Sent("250 2.0.0 queued as  [31m7")),
        (
            {"RCPT": "250 " + "x" * 2_000 + "\r\n", "DOT": "554 " + "x" * 2_000 + "\r\n"},
            Refused("554 " + "x" * 296, Subject.MESSAGE),
        ),
    ],
)
async def test_the_reply_decides_the_outcome(script: Script, outcome: Outcome, way: Script) -> None:
    """A 4xx reply defers the mail, a 5xx reply refuses it. The subject tells whether others are concerned too.

    The outcome has the whole reply.
    """
    address = MAIL.mail_from if "MAIL" in script else MAIL.rcpt_to
    assert await outcome_of({**way, **script}) == echoed(outcome, address)


def death_at(verb: str) -> Act:
    return Act("-" if verb == "BODY" else "", then="cut")


@BOTH_WAYS
@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("GREETING", Unreachable),
        ("EHLO", Unreachable),
        ("MAIL", Unreachable),
        ("RCPT", Deferred),
        ("DATA", Deferred),
        ("BODY", Uncertain),
        ("DOT", Uncertain),
    ],
)
async def test_a_dead_relay_means_the_outcome_of_the_phase(verb: str, kind: type[Outcome], way: Script) -> None:
    """Before MAIL the mail is not affected.

    Before the final dot it cannot have been sent. After the dot that is unknown.
    """
    assert isinstance(await outcome_of({**way, verb: death_at(verb)}), kind)


@pytest.mark.parametrize(
    ("verb", "kind"),
    [("GREETING", Unreachable), ("EHLO", Unreachable), ("MAIL", Unreachable), ("RCPT", Deferred), ("DATA", Deferred),
     ("DOT", Uncertain)],
)  # fmt: skip
async def test_a_timeout_means_the_same_as_a_dead_relay(verb: str, kind: type[Outcome]) -> None:
    """Every step has its own timeout."""
    timeouts = Timeouts(connect_seconds=0.1, command_seconds=0.1, dot_seconds=0.1)
    assert isinstance(await outcome_of({verb: HANG}, timeouts), kind)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"GREETING": "421 4.7.0 too many connections\r\n"}, Unreachable),
        ({"GREETING": "554 5.7.1 go away\r\n"}, Unreachable),
        ({"EHLO": "550 5.7.1 go away\r\n"}, Unreachable),
        ({"MAIL": "354 go ahead\r\n"}, Unreachable),
        ({"RCPT": "rubbish\r\n"}, Deferred),
        ({"DATA": "250 ok\r\n"}, Deferred),
        ({"DOT": "354 more, please\r\n"}, Uncertain),
        ({"DOT": "rubbish\r\n"}, Uncertain),
    ],
)
async def test_a_relay_that_answers_out_of_turn_is_disconnected(script: Script, kind: type[Outcome]) -> None:
    """After a reply that makes no sense, all later replies are ignored, and the phase decides the outcome."""
    assert isinstance(await outcome_of(script), kind)


async def test_a_closed_port_is_unreachable() -> None:
    """The reason contains host and port."""
    async with serving() as server:
        port = server.port
    async with relays_to(server) as relays:
        outcome = await relays.send(MAIL)
    assert isinstance(outcome, Unreachable)
    assert f"127.0.0.1:{port}" in outcome.explanation


@BOTH_WAYS
async def test_replies_may_arrive_in_chunks(way: Script) -> None:
    """Multi-line replies are read correctly, even byte by byte."""
    script: Script = {
        **way,
        "GREETING": Act("220-relay\r\n220-example\r\n220 ready\r\n", bytewise=True),
        "RCPT": Act("250-2.1.5 first\r\n250-2.1.5 second\r\n250 2.1.5 third\r\n", bytewise=True),
        "DATA": Act("354 go ahead\r\n", bytewise=True),
        "DOT": Act("250-2.0.0 queued\r\n250 2.0.0 as 7\r\n", bytewise=True),
    }
    async with serving(script) as server, relays_to(server) as relays:
        assert await relays.send(MAIL) == Sent("250 2.0.0 queued 2.0.0 as 7")
        assert await relays.send(MAIL) == Sent("250 2.0.0 queued 2.0.0 as 7")


@BOTH_WAYS
async def test_each_of_several_mails_gets_its_own_reply(way: Script) -> None:
    """The relay may accept, refuse or defer each mail, at any command."""
    replies: Script = {
        "MAIL": [*["250 ok\r\n"] * 4, "451 4.3.0 m4\r\n", "250 ok\r\n"],
        "RCPT": ["250 ok\r\n", "550 5.1.1 r1\r\n", "250 ok\r\n"] if not way else
                ["250 ok\r\n", "550 5.1.1 r1\r\n", "250 ok\r\n", "250 ok\r\n", "503 no MAIL\r\n", "250 ok\r\n"],
        "DATA": ["354 go\r\n", "452 4.3.1 d2\r\n", "354 go\r\n"] if not way else
                ["354 go\r\n", "503 no RCPT\r\n", "452 4.3.1 d2\r\n", "354 go\r\n", "503 no MAIL\r\n", "354 go\r\n"],
        "DOT": ["250 b0\r\n", "554 b3\r\n", "250 b5\r\n"],
    }  # fmt: skip
    async with serving({**way, **replies}) as server, relays_to(server) as relays:
        outcomes = await outcomes_of(relays, *"012345")
    assert list(outcomes.values()) == [
        Sent("250 b0"),
        Refused("550 5.1.1 r1 <1@example.org>"),
        Deferred("452 4.3.1 d2 <2@example.org>"),
        Refused("554 b3 <3@example.org>", Subject.MESSAGE),
        Deferred("451 4.3.0 m4 <shop@example.org>"),
        Sent("250 b5"),
    ]
    assert server.connections == 1
    assert server.accepted == ["TO:<0@example.org>", "TO:<5@example.org>"]


async def test_the_end_of_a_mail_and_the_beginning_of_the_next_are_sent_together() -> None:
    """Each mail takes one round trip: the next group of commands arrives with a mail, before the mail's dot is
    answered.
    """
    answer_late: Script = {**PIPELINING, "DOT": Act("", then="hang")}
    async with serving(answer_late) as server, relays_to(server, closing_seconds=0) as relays:
        for name in "ab":
            relays.submit(mail_to(name), lambda _: None)
        await server.hanging.wait()
        session = next(iter(server.sessions))
        assert session.read.startswith(b"MAIL FROM:<shop@example.org> RET=HDRS\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")


async def test_a_mail_without_recipients_is_ended_with_a_lone_dot() -> None:
    """A lone dot ends a mail that got 354 although its recipient was refused (RFC 2920 3.1).

    Its reply belongs to no mail.
    """
    script: Script = {
        **PIPELINING,
        "RCPT": ["550 5.1.1 no\r\n", "250 ok\r\n"],
        "DOT": ["554 no one\r\n", "250 ok\r\n"],
    }
    async with serving(script) as server, relays_to(server) as relays:
        outcomes = await outcomes_of(relays, "a", "b", "c")
    assert [type(outcome) for outcome in outcomes.values()] == [Refused, Sent, Sent]
    assert server.mails[0] == b".\r\n"
    assert server.accepted == ["TO:<b@example.org>", "TO:<c@example.org>"]
    assert server.connections == 1


async def test_a_mail_that_was_only_begun_is_sent_over_another_connection() -> None:
    """If a connection dies after one mail is answered and the next one is begun, the begun mail uses another
    connection.
    """
    for ending in (CUT, "421 4.3.2 closing\r\n"):
        dying: Script = {**PIPELINING, "MAIL": ["250 ok\r\n", ending]}
        async with serving(dying, PIPELINING) as server, relays_to(server) as relays:
            outcomes = await outcomes_of(relays, "a", "b", "c")
        assert list(outcomes.values()) == [Sent("250 2.0.0 queued")] * 3
        assert server.connections == 2


async def test_a_mail_that_kills_every_connection_is_deferred() -> None:
    """The mail is not returned to the queue forever."""
    deadly: Script = {**PIPELINING, "MAIL": ["250 ok\r\n", "250 ok\r\n", CUT], "DATA": "354 go ahead\r\n"}
    async with serving(deadly) as server, relays_to(server) as relays:
        names = [f"r{number}" for number in range(12)]
        outcomes = await outcomes_of(relays, *names)
    assert {type(outcome) for outcome in outcomes.values()} <= {Sent, Deferred}
    assert [f"TO:<{name}@example.org>" for name in names if isinstance(outcomes[name], Sent)] == sorted(
        server.accepted, key=lambda to: int(to[5:].partition("@")[0])
    )


LIES: dict[str, Script] = {
    "discards the commands behind MAIL": {"MAIL": Act("250 ok\r\n", discard=True)},
    "discards the commands behind the dot": {"DOT": Act("250 ok\r\n", discard=True)},
    "one line too many at MAIL": {"MAIL": "250 ok\r\n250 ok\r\n"},
    "one line too many at RCPT": {"RCPT": "250 ok\r\n250 ok\r\n"},
    "one line too many after 354": {"DATA": "354 go\r\n250 ok\r\n"},
    "one line too many at the dot": {"DOT": "250 ok\r\n250 ok\r\n"},
    "refuses the dot after a line too many": {"DOT": "250 ok\r\n554 no\r\n"},
    "one line too few at MAIL": {"MAIL": ["250 ok\r\n", Act("", accept=True)]},
    "one line too few at RCPT": {"RCPT": ["250 ok\r\n", Act("", accept=True)]},
    "no line at the dot": {"DOT": ["250 ok\r\n", Act("", accept=True)]},
    "another order": {"MAIL": "", "RCPT": "354 go\r\n250 ok\r\n", "DATA": "250 ok\r\n354 go\r\n"},
    "an extra line later": {"DATA": "354 go\r\n", "BODY": ["", "250 extra\r\n"]},
    "421 while idle": {"IDLE": Act("421 4.4.2 idle\r\n", then="cut")},
    "chatter while idle": {"IDLE": "250 hello?\r\n"},
    "accepts, then dies": {"DOT": ["250 ok\r\n", Act("", accept=True, then="cut")]},
    "dies, then keeps": {"BODY": ["", CUT]},
    "accepts, then refuses": {"DOT": ["250 ok\r\n", "451 4.3.0 no\r\n", "554 no\r\n", "250 ok\r\n"]},
    "421 at RCPT": {"RCPT": ["250 ok\r\n", "421 4.3.0 no\r\n"]},
    "421 at DATA": {"DATA": ["354 go\r\n", "421 4.3.0 no\r\n"]},
    "421 at the dot": {"DOT": ["250 ok\r\n", "421 4.3.0 no\r\n"]},
    "greets twice": {"GREETING": "220 hello\r\n220 hello\r\n"},
    "sends more after EHLO": {"EHLO": "250-relay\r\n250 PIPELINING\r\n250 ok\r\n"},
}
COMMANDS = ("EHLO shop.example", "MAIL FROM:<", "RCPT TO:<", "DATA", "RSET", "QUIT")


@BOTH_WAYS
@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("lie", LIES)
async def test_no_lie_of_a_relay_pairs_a_reply_with_another_mail(lie: str, connections: int, way: Script) -> None:
    """Sent mails were accepted by the relay, refused and deferred mails were not, and no mail is read as commands."""
    names = [f"r{number}" for number in range(8)]
    patience = Timeouts(connect_seconds=1, command_seconds=0.1, dot_seconds=0.2)
    async with (
        serving({**way, **LIES[lie]}) as server,
        relays_to(server, connections=connections, timeouts=patience) as relays,
    ):
        outcomes = await outcomes_of(relays, *names)
        if way and lie.startswith("discards"):
            assert len(relays.not_pipelined) == 1
            assert set(map(type, outcomes.values())) == {Sent}
    accepted = [recipient[4:].partition("@")[0] for recipient in server.accepted]
    assert len(accepted) == len(set(accepted))
    for name, outcome in outcomes.items():
        match outcome:
            case Sent():
                assert name in accepted
            case Refused() | Deferred() | Unreachable():
                assert name not in accepted
    assert all(line.startswith(COMMANDS) for lines in server.commands for line in lines)
    assert all(re.fullmatch(rb"Subject: Hello\r\n\r\nr\d\r\n\.\r\n", mail) for mail in server.mails)


async def test_a_mail_that_is_submitted_during_the_final_reply_begins_at_once() -> None:
    """Its commands do not wait for the reply to the mail before. Otherwise a slow relay would lose a round trip."""
    began = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.readuntil(b"\r\n")
        writer.write(b"250-relay\r\n250 PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        relays.submit(MAIL, outcomes.append)
        await reader.readuntil(b"DATA\r\n")
        began.set()
        writer.write(b"250 first\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 second\r\n")

    outcomes: list[Outcome] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        relay = SmtpAddress.parse(f"smtp://127.0.0.1:{port}")
        async with Relays([relay], limits=Limits(connections=1), closing_seconds=0) as relays:
            relays.submit(MAIL, outcomes.append)
            async with asyncio.timeout(5):
                await began.wait()
            assert outcomes == []
            await until(lambda: len(outcomes) == 2)
    assert [outcome.explanation for outcome in outcomes if isinstance(outcome, Sent)] == ["250 first", "250 second"]
