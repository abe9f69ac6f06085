import asyncio
import base64
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import pytest

from coupons.mail import Envelope
from coupons.smtp import (
    Deferred,
    Outcome,
    Refused,
    Relay,
    SenderRefused,
    Sent,
    SmtpAddress,
    SmtpAddressError,
    Timeouts,
    Tls,
    Uncertain,
    Unreachable,
)

# A certificate for "localhost" until 2120, signed by itself, and its key, which opens nothing.
KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSsSydKqKd6/iSHBy
cFVPOa6DT8cac8As7S8/RxKCl4+hRANCAAS23+48DGVyDAJwxbV9WfNk3yihQK/w
J4oAym/SGNtaVHulDKY06DLEJAtTg3m7t4dR45Npv9q5k+YiQQC37sZh
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBYTCCAQegAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLbf7jwMZXIMAnDF
tX1Z82TfKKFAr/AnigDKb9IY21pUe6UMpjToMsQkC1ODebu3h1Hjk2m/2rmT5iJB
ALfuxmGjSDBGMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAPBgNVHRMBAf8EBTADAQH/
MB0GA1UdDgQWBBTlgJgd0XrrYI5Kdt2nc4oVIUJsAjAKBggqhkjOPQQDAgNIADBF
AiEAvBYiGoi2RL3vxZqanzi9HxODhPoCQGlOFtte/wGocqgCIBViIEis7i6/Utv5
GQk5mIfC5Aunf2HAwfph+3kWkfKR
-----END CERTIFICATE-----
"""

MAIL = Envelope("shop@example.org", "ada@example.org", b"Subject: Hello\r\n\r\n.Ada\r\n..\r\n")


class Do(Enum):
    """What the scripted relay does instead of replying."""

    CUT = auto()
    HANG = auto()


Script = dict[str, bytes | Do | list[bytes | Do]]
"""Verb (GREETING, EHLO, …, BODY for the middle of a mail, DOT) → what comes of it; a list goes mail by mail."""

FRIENDLY: Script = {
    "GREETING": b"220 relay.example ready\r\n",
    "EHLO": b"250-relay.example\r\n250-DSN\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "DOT": b"250 2.0.0 queued\r\n",
    "RSET": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


class CutError(Exception):
    """The script says that the relay dies here."""


@dataclass
class ScriptedRelay:
    """A relay that follows a script for each connection, the last one for all that follow."""

    scripts: tuple[Script, ...]
    tls: ssl.SSLContext | None
    byte_by_byte: bool
    port: int = 0
    said: list[list[str]] = field(default_factory=list)
    mails: list[bytes] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def verbs(self) -> list[list[str]]:
        """What each connection was told, without arguments."""
        return [[line.partition(" ")[0] for line in lines] for lines in self.said]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = FRIENDLY | self.scripts[min(len(self.said), len(self.scripts) - 1)]
        lines: list[str] = []
        self.said.append(lines)
        try:
            await Session(self, script, lines, reader, writer).run()
        except CutError:
            writer.transport.abort()
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@dataclass
class Session:
    relay: ScriptedRelay
    script: Script
    lines: list[str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        await self.react("GREETING")
        while line := (await self.reader.readline()).decode("ascii").rstrip("\r\n"):
            self.lines.append(line)
            verb = line.partition(" ")[0]
            reply = await self.react(verb)
            if verb == "STARTTLS" and self.relay.tls is not None:
                await self.writer.start_tls(self.relay.tls)
            if verb == "DATA" and reply.startswith(b"354"):
                await self.take_mail()
            if reply.startswith(b"421"):
                return

    async def take_mail(self) -> None:
        if "BODY" in self.script:
            await self.reader.readexactly(10)
            await self.react("BODY")
        self.relay.mails.append(await self.reader.readuntil(b"\r\n.\r\n"))
        await self.react("DOT")

    async def react(self, verb: str) -> bytes:
        action = self.script.get(verb, b"500 5.5.1 what?\r\n")
        if isinstance(action, list):
            action = action[min(self.seen[verb], len(action) - 1)]
        self.seen[verb] += 1
        if isinstance(action, bytes):
            await self.reply(action)
            return action
        if action is Do.HANG:
            self.relay.hanging.set()
            await self.reader.read()
        raise CutError

    async def reply(self, reply: bytes) -> None:
        size = 1 if self.relay.byte_by_byte else len(reply)
        for start in range(0, len(reply), size):
            self.writer.write(reply[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(0)


@asynccontextmanager
async def relay_with(
    *scripts: Script, tls: ssl.SSLContext | None = None, implicit: bool = False, byte_by_byte: bool = False
) -> AsyncIterator[ScriptedRelay]:
    scripted = ScriptedRelay(scripts or ({},), tls, byte_by_byte)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=tls if implicit else None)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()


def client_of(
    scripted: ScriptedRelay,
    *,
    connections: int = 1,
    mails_per_connection: int = 0,
    idle_seconds: float = 30,
    closing_seconds: float = 10,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 a frozen value
) -> Relay:
    return Relay(
        SmtpAddress.parse(f"smtp://127.0.0.1:{scripted.port}"),
        connections=connections,
        local_hostname="shop.example",
        mails_per_connection=mails_per_connection,
        idle_seconds=idle_seconds,
        closing_seconds=closing_seconds,
        timeouts=timeouts,
    )


async def outcome_of(script: Script, timeouts: Timeouts = Timeouts()) -> Outcome:  # noqa: B008 a frozen value
    """Of a mail on a fresh connection to such a relay."""
    async with relay_with(script) as scripted, client_of(scripted, timeouts=timeouts) as relay:
        return await relay.send(MAIL)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 the fact is what the other end has seen
            await asyncio.sleep(0.005)


# --- a transaction ----------------------------------------------------------------------------------------------------


async def test_mail_is_handed_over_whole() -> None:
    """Dots are stuffed, the final dot is on a line of its own, and a bounce is asked to leave the codes out."""
    async with relay_with() as scripted, client_of(scripted) as relay:
        assert await relay.send(MAIL) == Sent("250 2.0.0 queued")
    assert scripted.said == [
        ["EHLO shop.example", "MAIL FROM:<shop@example.org> RET=HDRS", "RCPT TO:<ada@example.org>", "DATA", "QUIT"]
    ]
    assert scripted.mails == [b"Subject: Hello\r\n\r\n..Ada\r\n...\r\n.\r\n"]


async def test_options_are_only_used_where_offered() -> None:
    """A relay without DSN gets a plain MAIL."""
    async with relay_with({"EHLO": b"250 relay.example\r\n"}) as scripted, client_of(scripted) as relay:
        assert await relay.send(MAIL) == Sent("250 2.0.0 queued")
    assert scripted.said[0][1] == "MAIL FROM:<shop@example.org>"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ({"MAIL": b"451 4.7.1 later\r\n"}, Deferred("451 4.7.1 later")),
        ({"MAIL": b"421 4.3.2 closing\r\n"}, Deferred("421 4.3.2 closing")),
        ({"MAIL": b"550 5.1.8 who are you\r\n"}, SenderRefused("550 5.1.8 who are you")),
        ({"MAIL": b"530 5.7.0 authenticate\r\n"}, SenderRefused("530 5.7.0 authenticate")),
        ({"RCPT": b"450 4.2.1 mailbox busy\r\n"}, Deferred("450 4.2.1 mailbox busy")),
        ({"RCPT": b"421 closing\r\n"}, Deferred("421 closing")),
        ({"RCPT": b"550 5.1.1 no such mailbox\r\n"}, Refused("550 5.1.1 no such mailbox")),
        ({"RCPT": b"550 no such mailbox\r\n"}, Refused("550 no such mailbox")),
        ({"RCPT": b"501 5.1.3 bad address\r\n"}, Refused("501 5.1.3 bad address")),
        ({"RCPT": b"550 5.7.1 relaying denied\r\n"}, SenderRefused("550 5.7.1 relaying denied")),
        ({"RCPT": b"535 no\r\n"}, SenderRefused("535 no")),
        ({"DATA": b"452 4.3.1 disk full\r\n"}, Deferred("452 4.3.1 disk full")),
        ({"DATA": b"554 5.5.1 no valid recipients\r\n"}, Refused("554 5.5.1 no valid recipients")),
        ({"DOT": b"451 4.3.0 disk full\r\n"}, Deferred("451 4.3.0 disk full")),
        ({"DOT": b"421 4.3.2 closing\r\n"}, Deferred("421 4.3.2 closing")),
        ({"DOT": b"554 5.6.0 spam\r\n"}, Refused("554 5.6.0 spam")),
        ({"DOT": b"250-2.0.0 queued\r\n250 as \x1b[31m7\r\n"}, Sent("250 2.0.0 queued as  [31m7")),
        (
            {"RCPT": b"250 " + b"x" * 2_000 + b"\r\n", "DOT": b"554 " + b"x" * 2_000 + b"\r\n"},
            Refused("554 " + "x" * 296),
        ),
    ],
)
async def test_reply_decides(script: Script, outcome: Outcome) -> None:
    """4xx: later. 5xx to the recipient or the mail: refused. 5xx to us: the sender is refused."""
    assert await outcome_of(script) == outcome


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
async def test_death_of_the_relay_means_what_was_at_stake(verb: str, kind: type[Outcome]) -> None:
    """Before MAIL nothing was; until the final dot the mail can't have been sent; from then on nobody knows."""
    assert isinstance(await outcome_of({verb: Do.CUT}), kind)


@pytest.mark.parametrize(
    ("verb", "kind"),
    [("GREETING", Unreachable), ("EHLO", Unreachable), ("MAIL", Unreachable), ("RCPT", Deferred), ("DATA", Deferred),
     ("DOT", Uncertain)],
)  # fmt: skip
async def test_silence_means_the_same_as_death(verb: str, kind: type[Outcome]) -> None:
    """Every step has its own time limit."""
    timeouts = Timeouts(connect_seconds=0.1, command_seconds=0.1, dot_seconds=0.1)
    assert isinstance(await outcome_of({verb: Do.HANG}, timeouts), kind)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ({"GREETING": b"421 4.7.0 too many connections\r\n"}, Unreachable),
        ({"GREETING": b"554 5.7.1 go away\r\n"}, Unreachable),
        ({"EHLO": b"550 5.7.1 go away\r\n"}, Unreachable),
        ({"MAIL": b"354 go ahead\r\n"}, Unreachable),
        ({"RCPT": b"rubbish\r\n"}, Deferred),
        ({"DATA": b"250 ok\r\n"}, Deferred),
        ({"DOT": b"354 more, please\r\n"}, Uncertain),
        ({"DOT": b"rubbish\r\n"}, Uncertain),
    ],
)
async def test_relay_that_answers_out_of_turn_is_left(script: Script, kind: type[Outcome]) -> None:
    """No reply is believed after one that makes no sense; what was at stake decides."""
    assert isinstance(await outcome_of(script), kind)


async def test_nobody_listening_is_unreachable() -> None:
    """The reason names host and port."""
    async with relay_with() as scripted:
        port = scripted.port
    async with Relay(SmtpAddress.parse(f"smtp://127.0.0.1:{port}"), local_hostname="shop.example") as relay:
        outcome = await relay.send(MAIL)
    assert isinstance(outcome, Unreachable)
    assert f"127.0.0.1 on port {port}" in outcome.explanation


async def test_host_that_cannot_exist_is_unreachable() -> None:
    """A name that DNS cannot have is no defect of ours."""
    assert isinstance(await send_to(f"smtps://{'a' * 70}.example"), Unreachable)


async def test_replies_may_come_in_pieces() -> None:
    """Multi-line replies, byte by byte, are read as what they are."""
    script: Script = {
        "GREETING": b"220-relay\r\n220-example\r\n220 ready\r\n",
        "RCPT": b"250-2.1.5 first\r\n250-2.1.5 second\r\n250 2.1.5 third\r\n",
        "DOT": b"250-2.0.0 queued\r\n250 2.0.0 as 7\r\n",
    }
    async with relay_with(script, byte_by_byte=True) as scripted, client_of(scripted) as relay:
        assert await relay.send(MAIL) == Sent("250 2.0.0 queued 2.0.0 as 7")
        assert await relay.send(MAIL) == Sent("250 2.0.0 queued 2.0.0 as 7")


# --- a connection's life ----------------------------------------------------------------------------------------------


async def test_connection_is_used_again_after_a_refusal() -> None:
    """What the relay holds of a refused mail is reset before the next one."""
    script: Script = {"RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n", b"450 4.2.1 no\r\n", b"250 ok\r\n"]}
    async with relay_with(script) as scripted, client_of(scripted) as relay:
        outcomes = [type(await relay.send(MAIL)) for _ in range(4)]
    assert outcomes == [Refused, Sent, Deferred, Sent]
    assert scripted.verbs == [
        ["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]
    ]


@pytest.mark.parametrize("ending", [Do.CUT, b"421 4.4.2 idle for too long\r\n"])
async def test_connection_that_the_relay_has_ended_is_opened_again(ending: bytes | Do) -> None:
    """421 or nothing in answer to MAIL on a connection used before is routine, and costs the mail nothing."""
    first: Script = {"MAIL": [b"250 ok\r\n", ending]}
    async with relay_with(first, {}) as scripted, client_of(scripted) as relay:
        assert [type(await relay.send(MAIL)) for _ in range(3)] == [Sent, Sent, Sent]
    assert scripted.verbs == [
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL"],
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"],
    ]


async def test_connection_is_opened_again_only_once() -> None:
    """A relay that dies at every MAIL is out of reach, not tried for ever."""
    async with (
        relay_with({"MAIL": [b"250 ok\r\n", Do.CUT]}, {"MAIL": Do.CUT}) as scripted,
        client_of(scripted) as relay,
    ):
        assert isinstance(await relay.send(MAIL), Sent)
        assert isinstance(await relay.send(MAIL), Unreachable)
    assert len(scripted.said) == 2


async def test_refused_reset_is_no_reason_to_lose_a_mail() -> None:
    """The next mail goes over a new connection."""
    script: Script = {"RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"], "RSET": b"502 no\r\n"}
    async with relay_with(script, {}) as scripted, client_of(scripted) as relay:
        assert [type(await relay.send(MAIL)) for _ in range(2)] == [Refused, Sent]


async def test_late_reply_is_never_taken_for_another_mails() -> None:
    """After a time limit the connection is closed: the reply to one mail cannot become the outcome of the next."""
    timeouts = Timeouts(dot_seconds=0.1)
    slow: Script = {"DOT": Do.HANG}
    next_one: Script = {"DOT": b"554 5.6.0 no\r\n"}
    async with relay_with(slow, next_one) as scripted, client_of(scripted, timeouts=timeouts) as relay:
        assert isinstance(await relay.send(MAIL), Uncertain)
        assert isinstance(await relay.send(MAIL), Refused)
    assert len(scripted.said) == 2


async def test_connection_ends_after_its_share_of_mails() -> None:
    """Relays that limit mails by connection are left politely before they object."""
    async with relay_with() as scripted, client_of(scripted, mails_per_connection=2) as relay:
        for _ in range(3):
            assert isinstance(await relay.send(MAIL), Sent)
    assert scripted.verbs == [
        ["EHLO", "MAIL", "RCPT", "DATA", "MAIL", "RCPT", "DATA", "QUIT"],
        ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"],
    ]


async def test_idle_connection_is_closed_and_opened_when_needed() -> None:
    """A relay's connections are not held between sendouts."""
    async with relay_with() as scripted, client_of(scripted, idle_seconds=0.01) as relay:
        assert isinstance(await relay.send(MAIL), Sent)
        await until(lambda: scripted.verbs[0][-1] == "QUIT")
        assert isinstance(await relay.send(MAIL), Sent)
    assert len(scripted.said) == 2


# --- the pool ---------------------------------------------------------------------------------------------------------


async def handed_over(relay: Relay, count: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for number in range(count):
        relay.hand_over(Envelope("shop@example.org", f"r{number}@example.org", MAIL.data), outcomes.append)
    await until(lambda: len(outcomes) >= count)
    return outcomes


async def test_mails_go_over_all_connections() -> None:
    """Each mail is sent once, over no more connections than allowed."""
    async with relay_with() as scripted, client_of(scripted, connections=3) as relay:
        outcomes = await handed_over(relay, 50)
    assert outcomes == [Sent("250 2.0.0 queued")] * 50
    assert len(scripted.said) == 3
    recipients = [line for lines in scripted.said for line in lines if line.startswith("RCPT")]
    assert sorted(recipients) == sorted(f"RCPT TO:<r{number}@example.org>" for number in range(50))


async def test_relay_that_serves_fewer_connections_gets_fewer() -> None:
    """A refused connection costs no mail as long as another one works, and is not asked for again at once."""
    refusing: Script = {"GREETING": b"421 4.7.0 too many connections\r\n"}
    async with relay_with({}, refusing) as scripted, client_of(scripted, connections=4) as relay:
        outcomes = await handed_over(relay, 50)
        assert outcomes == [Sent("250 2.0.0 queued")] * 50
        assert await handed_over(relay, 50) == outcomes
    assert len(scripted.said) == 4


async def test_relay_out_of_reach_is_told_for_every_mail_at_once() -> None:
    """Nobody waits for one connection attempt after the other; and the next mail is a new attempt."""
    dead: Script = {"GREETING": b"554 5.7.1 closed\r\n"}
    async with relay_with(dead, dead, {}) as scripted, client_of(scripted, connections=2) as relay:
        outcomes = await handed_over(relay, 100)
        assert outcomes == [Unreachable("554 5.7.1 closed")] * 100
        assert len(scripted.said) == 2
        assert isinstance(await relay.send(MAIL), Sent)


async def test_leaving_hands_back_what_was_not_begun() -> None:
    """Every mail has exactly one outcome: in flight past the moment of grace uncertain, waiting ones not sent."""
    outcomes: list[Outcome] = []
    async with relay_with({"DOT": Do.HANG}) as scripted:
        async with client_of(scripted, closing_seconds=0) as relay:
            for _ in range(3):
                relay.hand_over(MAIL, outcomes.append)
            await scripted.hanging.wait()
        relay.hand_over(MAIL, outcomes.append)
    assert outcomes == [Unreachable("shutting down")] * 2 + [Uncertain("shutting down"), Unreachable("shutting down")]


async def test_leaving_before_the_dot_sends_nothing() -> None:
    """A mail that was begun but not handed over is as good as not begun."""
    outcomes: list[Outcome] = []
    async with relay_with({"RCPT": Do.HANG}) as scripted, client_of(scripted, closing_seconds=0) as relay:
        relay.hand_over(MAIL, outcomes.append)
        await scripted.hanging.wait()
    assert outcomes == [Unreachable("shutting down")]
    assert scripted.mails == []


async def test_leaving_lets_a_mail_in_flight_come_to_its_end() -> None:
    """A mail whose reply is a moment away does not become uncertain."""
    outcomes: list[Outcome] = []
    async with relay_with() as scripted, client_of(scripted) as relay:
        relay.hand_over(MAIL, outcomes.append)
        await until(lambda: bool(scripted.said))
    assert outcomes == [Sent("250 2.0.0 queued")]


async def test_cancelled_caller_does_not_lose_the_relay() -> None:
    """Whoever waits for a mail may go; the mail comes to its end, and the connection serves the next."""
    async with relay_with() as scripted, client_of(scripted) as relay:
        waiting = asyncio.create_task(relay.send(MAIL))
        await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance(await relay.send(MAIL), Sent)
    assert len(scripted.mails) == 2


async def test_defect_in_a_report_is_not_swallowed() -> None:
    """A surprise ends neither the other mails nor in silence."""

    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with relay_with() as scripted, client_of(scripted) as relay:
            relay.hand_over(MAIL, fail)
            assert isinstance(await relay.send(MAIL), Sent)


async def test_defect_in_an_envelope_has_an_outcome_too() -> None:
    """An address that should never have come here is not sent, and the defect is told."""
    with pytest.raises(ValueError, match="prohibited control character"):
        async with relay_with() as scripted, client_of(scripted) as relay:
            outcome = await relay.send(Envelope("shop@example.org", "a@b\r\nRSET", MAIL.data))
            assert outcome == Unreachable("a defect of our own")
            assert isinstance(await relay.send(MAIL), Sent)


# --- TLS and passwords ------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "localhost.pem"
    path.write_text(KEY_AND_CERTIFICATE)
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


STARTTLS: Script = {
    "EHLO": b"250-relay.example\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n",
    "STARTTLS": b"220 2.0.0 go\r\n",
}


async def send_to(url: str) -> Outcome:
    async with Relay(SmtpAddress.parse(url), local_hostname="shop.example") as relay:
        return await relay.send(MAIL)


async def test_password_follows_tls(certificate: Path, server_tls: ssl.SSLContext) -> None:
    """With STARTTLS, AUTH is said after the connection is encrypted and the certificate verified."""
    async with relay_with(STARTTLS, tls=server_tls) as scripted:
        url = f"smtp://shop:s%40cret@localhost:{scripted.port}?tls=starttls&ca={certificate}"
        assert isinstance(await send_to(url), Sent)
    assert scripted.verbs == [["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]]
    assert base64.b64decode(scripted.said[0][3].split()[2]) == b"\0shop\0s@cret"


async def test_implicit_tls(certificate: Path, server_tls: ssl.SSLContext) -> None:
    """smtps:// is encrypted from the first byte."""
    async with relay_with(tls=server_tls, implicit=True) as scripted:
        assert isinstance(await send_to(f"smtps://localhost:{scripted.port}?ca={certificate}"), Sent)


async def test_no_password_without_tls() -> None:
    """A relay that no longer offers STARTTLS, or someone in between who hides it, gets neither password nor mail."""
    async with relay_with({"EHLO": b"250-relay.example\r\n250 AUTH PLAIN\r\n"}) as scripted:
        outcome = await send_to(f"smtp://shop:secret@127.0.0.1:{scripted.port}?tls=starttls")
    assert outcome == Unreachable("SMTP STARTTLS extension not supported by server.")
    assert scripted.verbs == [["EHLO"]]


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("trusted", [True, False])
async def test_wrong_certificate_gets_no_password(
    certificate: Path, server_tls: ssl.SSLContext, implicit: bool, trusted: bool
) -> None:
    """Neither an authority that nobody vouches for nor another host's certificate will do."""
    async with relay_with(STARTTLS, tls=server_tls, implicit=implicit) as scripted:
        scheme, option = ("smtps", "") if implicit else ("smtp", "tls=starttls&")
        host, ca = ("127.0.0.1", f"ca={certificate}") if trusted else ("localhost", "")
        query = f"?{option}{ca}".rstrip("?&")
        outcome = await send_to(f"{scheme}://shop:secret@{host}:{scripted.port}{query}")
    assert isinstance(outcome, Unreachable)
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.explanation
    assert not any("AUTH" in verbs or "MAIL" in verbs for verbs in scripted.verbs)


async def test_refused_password_is_not_shown() -> None:
    """A relay's words about a wrong password may quote it: only its code is kept."""
    secret = base64.b64encode(b"\0shop\0secret")
    async with relay_with({"AUTH": b"535 5.7.8 cannot take " + secret + b"\r\n"}) as scripted:
        outcome = await send_to(f"smtp://shop:secret@127.0.0.1:{scripted.port}")
    assert outcome == Unreachable("the relay refused user and password: 535")


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("smtp://127.0.0.1", SmtpAddress("127.0.0.1", 25, Tls.NONE)),
        ("smtp://localhost:1025/", SmtpAddress("localhost", 1025, Tls.NONE)),
        ("smtp://[::1]:25", SmtpAddress("::1", 25, Tls.NONE)),
        ("smtp://relay.example", SmtpAddress("relay.example", 587, Tls.STARTTLS)),
        ("smtp://mailpit:1025?tls=none", SmtpAddress("mailpit", 1025, Tls.NONE)),
        ("smtp://u:p@127.0.0.2:25", SmtpAddress("127.0.0.2", 25, Tls.NONE, "u", "p")),
        ("smtps://u%3A:p%2F%40%25@relay.example", SmtpAddress("relay.example", 465, Tls.IMPLICIT, "u:", "p/@%")),
        (
            "smtps://relay.example?ca=/etc/ca.pem",
            SmtpAddress("relay.example", 465, Tls.IMPLICIT, ca_file="/etc/ca.pem"),
        ),
    ],
)
def test_address_says_how_to_talk(url: str, address: SmtpAddress) -> None:
    """TLS is required wherever it is not loopback, unless the address says otherwise."""
    assert SmtpAddress.parse(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must look like"),
        ("relay.example:25", "must look like"),
        ("https://u:sEcret@relay.example", "must look like"),
        ("smtp://u:sE/cret@relay.example", "must look like"),
        ("smtp://u:sE#cret@relay.example", "must look like"),
        ("smtp://u:sE?cret@relay.example", "must look like"),
        ("smtp://u:sEcret@relay.example:99999", "must look like"),
        ("smtp://u:sEcret@relay.example?tls", "must look like"),
        ("smtp://u:sEcret@relay.example?tsl=none", "unknown options: tsl"),
        ("smtp://u:sEcret@relay.example?tls=maybe", "may say tls=starttls or tls=none"),
        ("smtps://u:sEcret@relay.example?tls=none", "nothing with smtps"),
        ("smtp://u:sEcret@relay.example?tls=none", "the password for relay.example would be sent in clear"),
    ],
)
def test_wrong_address_is_told_without_its_password(url: str, reason: str) -> None:
    """Neither the message nor what it was raised from shows any part of the password."""
    with pytest.raises(SmtpAddressError, match=reason) as caught:
        SmtpAddress.parse(url)
    assert "cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_address_hides_its_password() -> None:
    """Whatever prints the address by accident prints no password."""
    assert "secret" not in repr(SmtpAddress.parse("smtps://u:secret@relay.example"))


def test_missing_authorities_are_told_at_once() -> None:
    """A wrong `ca` is an error of the address, not of every mail."""
    with pytest.raises(SmtpAddressError, match=f"{os.sep}nowhere.pem cannot be read"):
        Relay(SmtpAddress.parse("smtps://relay.example?ca=/nowhere.pem"))


def test_hostname_that_cannot_be_said_is_told_at_once() -> None:
    """A wrong setting is no error of every mail."""
    with pytest.raises(SmtpAddressError, match="EHLO"):
        Relay(SmtpAddress.parse("smtp://127.0.0.1"), local_hostname="my host")
