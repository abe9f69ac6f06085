"""For any bytes from a relay, each mail gets its own reply or none, and only declared errors are raised."""

import asyncio
import random
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from coupons.smtp.address import SmtpAddress
from coupons.smtp.commands import Capabilities
from coupons.smtp.connect import ConnectError, Connector
from coupons.smtp.progress import CloseCause
from coupons.smtp.queue import Mail
from coupons.smtp.replies import MAX_EXPLANATION
from coupons.smtp.session import Session
from tests.fuzz.fuzzing import CUTS, cut, fuzzed
from tests.smtp_client import mail_to
from tests.unit.test_smtp_session import Conversation, ModelRelay, check_outcomes

# --- a correct relay on a faulty line ------------------------------------------------------------------------------

NOISE = st.text("-a \r\n\0\x80\xff", min_size=1, max_size=6).map(lambda text: text.encode("latin-1"))
"""Noise without digits, because a completely forged reply cannot be distinguished from a real reply."""
ONE_REPLY = len(b"250 said\r\n")
"""The most bytes that are duplicated, because no client can detect that a whole group of replies was replayed."""
DAMAGE = st.one_of(
    st.tuples(st.sampled_from(["lost", "noise", "changed"]), st.integers(0, 400), st.integers(1, 40), NOISE),
    st.tuples(st.just("twice"), st.integers(0, 400), st.integers(1, ONE_REPLY), NOISE),
)


class Garbled(ModelRelay):
    """A relay whose replies are damaged once. From byte `start` on, bytes are lost, duplicated, inserted or changed."""

    def __init__(self, chance: random.Random, damage: tuple[str, int, int, bytes] | None) -> None:
        super().__init__(chance, "none", 0)
        self._damage = damage
        self._passed = bytearray()

    def _reply(self, code: bytes) -> None:
        before = len(self.output)
        super()._reply(code)
        new, self.output = self.output[before:], self.output[:before]
        self.output += b"".join(map(self._on_the_line, new))

    def _on_the_line(self, byte: int) -> bytes:
        at = len(self._passed)
        self._passed.append(byte)
        as_it_is = bytes([byte])
        match self._damage:
            case ("lost", start, length, _) if start <= at < start + length:
                return b""
            case ("twice", start, length, _) if at == start + length - 1:
                return as_it_is + bytes(self._passed[start:])
            case ("noise", start, _, noise) if at == start:
                return noise + as_it_is
            case ("changed", start, _, noise) if at == start and not as_it_is.isdigit():
                return noise[:1]
        return as_it_is


def relays(
    chance: random.Random, damages: list[tuple[str, int, int, bytes]], accepted: list[int]
) -> Iterator[ModelRelay]:
    for damage in [*damages, *[None] * 1_000]:
        relay = Garbled(chance, damage)
        yield relay
        accepted += relay.accepted


@fuzzed(3)
@given(st.randoms(use_true_random=False), st.lists(DAMAGE, max_size=4), st.integers(1, 12), st.booleans())
def test_no_damage_on_the_line_pairs_a_reply_with_another_mail(
    chance: random.Random, damages: list[tuple[str, int, int, bytes]], count: int, pipelining: bool
) -> None:
    """Each mail has one outcome. Mails reported as sent were accepted; refused and deferred mails were not."""
    accepted: list[int] = []
    check_outcomes(relays(chance, damages, accepted), accepted, count, chance, pipelining=pipelining)


# --- a relay that sends anything -----------------------------------------------------------------------------------

WORDS = st.sampled_from([
    b"250 ok\r\n", b"250-2.1.0 more\r\n", b"354 go\r\n", b"354-go\r\n", b"421 4.3.2 closing\r\n",
    b"450 4.2.0 later\r\n", b"550 5.1.1 no\r\n", b"550 5.7.1 policy\r\n", b"503 order\r\n", b"220 hello\r\n",
    b"999 what\r\n", b"250\r\n", b"2", b"-", b"\r\n", b"\n", b"\r", b"\0", b"\xff\xfe",
    b"250 " + b"x" * 5_000 + b"\r\n", b"250-a\r\n" * 120, b"250 \x1b[31m\r\n",
])  # fmt: skip
SPEECH = st.lists(WORDS | st.binary(max_size=6), max_size=20).map(b"".join)


@fuzzed(3)
@given(SPEECH, CUTS, st.integers(1, 4), st.booleans(), st.sampled_from(CloseCause))
def test_any_bytes_leave_each_mail_one_outcome(
    speech: bytes, cuts: list[float], count: int, pipelining: bool, cause: CloseCause
) -> None:
    """Each mail is settled once or returned, and its content is written only after a 354 reply."""
    session = Session(Capabilities(eight_bit=True, size=10_000), pipelining=pipelining)
    mails = deque(Mail(mail_to(f"m{number}"), lambda _: None, owner=number) for number in range(count))
    begun: list[Mail] = []
    found = Conversation()
    for piece in cut(speech, cuts):
        while session.can_accept and mails:
            begun.append(mails.popleft())
            assert session.begin(begun[-1]) is None
        session.output()
        if found.add(session.receive(piece)):
            break
    written = session.output().count(b"Subject: Hello")
    assert written <= speech.count(b"354")
    if found.close is None:
        found.add(session.end(cause, "a reason"))
    assert found.close is not None
    assert len(found.close.reason) <= MAX_EXPLANATION
    assert found.close.reason.isprintable()
    ended = [mail for mail, _ in found.settled] + found.returned
    assert sorted(str(mail.owner) for mail in ended) == sorted(str(mail.owner) for mail in begun)
    for _, outcome in found.settled:
        assert len(outcome.explanation) <= MAX_EXPLANATION
        assert outcome.explanation.isprintable()


# --- a relay that greets with anything -----------------------------------------------------------------------------

OFFERED = st.sampled_from([
    b"relay", b"PIPELINING", b"SIZE", b"SIZE 1000000", b"SIZE " + b"9" * 4_500, b"SIZE -1", "SIZE \u0663".encode(),
    b"", b"AUTH PLAIN LOGIN", b"AUTH", b"AUTH=", b"STARTTLS", b"SMTPUTF8", b"8BITMIME", b"x" * 9_000, b"\0\xff",
    b"\x1b[31m",
])  # fmt: skip


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """One whole reply, or bytes that only resemble a reply."""
    code = draw(st.sampled_from([b"250", b"250", b"250", b"220", b"421", b"502", b"999", b"25"]))
    *lines, last = draw(st.lists(OFFERED, min_size=1, max_size=5))
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"", b"\r\n250 more\r\n"]))
    return b"".join([*(code + b"-" + line + b"\r\n" for line in lines), code, b" ", last, end])


@fuzzed(0.5)
@example(b"220 relay\r\n", b"250-relay\r\n250 SIZE " + b"9" * 4_400 + b"\r\n", False)
@given(st.just(b"220 relay\r\n") | replies() | st.binary(max_size=9), replies() | st.binary(max_size=9), st.booleans())
def test_any_greeting_opens_a_connection_or_raises_a_connect_error(
    greeting: bytes, offers: bytes, at_once: bool
) -> None:
    """Whatever a relay sends before the first mail, the connection opens or fails with a printable reason."""
    asyncio.run(greeted([greeting + offers] if at_once else [greeting, offers]))


async def greeted(words: list[bytes]) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(words[0])
            for each in words[1:]:
                await reader.readline()
                writer.write(each)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = SmtpAddress.parse(f"smtp://127.0.0.1:{port}")
        try:
            opened = await Connector(address, "shop.example", 0.2).connect()
        except ConnectError as error:
            assert str(error).isprintable()
        else:
            assert opened.capabilities.size >= 0
            opened.transport.abort()
