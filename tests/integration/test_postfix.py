"""Postfix as the relay: the sink behind it gets each mail once and unchanged."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest

from coupons.addresses import parse_address
from coupons.mail import Envelope, compile_email, message_id
from coupons.smtp import Limits, Outcome, Relays, Sent, SmtpAddress
from coupons.templates.rendering import Coupon, Parts, Template
from sandbox.services import Sink
from tests.postfix import Postfix, private_postfix
from tests.waiting import until

SENDOUT = UUID("3d1cbb6c-6c1f-4c0e-9a30-7b4c2c1f3a55")
MAILS = 200
ARRIVAL_SECONDS = 60

# A line with only a dot, lines that begin with dots, non-ASCII letters, and lines longer than SMTP allows.
TEXT = ".\n..two\n.hidden {{ first_name }}\n{{ coupon('spring') }}\n" + "long äöü € " * 200 + "\n" + "x" * 2_000 + "\n."
HTML = "<p>.\n.</p><p>{{ first_name }}: <b>{{ coupon('spring') }}</b></p>" + "<p>ascii</p>" * 200


pytestmark = pytest.mark.usefixtures("postfix_is_installed")


@pytest.fixture(params=[False, True], ids=["plain", "starttls"])
def postfix(request: pytest.FixtureRequest, sink: Sink) -> Iterator[Postfix]:
    with private_postfix(sink.url.removeprefix("smtp://"), tls=request.param) as postfix:
        yield postfix


async def test_each_mail_passes_postfix_once_and_unchanged(postfix: Postfix, sink: Sink) -> None:
    """Over several connections, with and without TLS, no mail is lost, duplicated, mixed up or changed.

    Postfix, which forbids unauthorized pipelining, logs no complaint.
    """
    envelopes = {f"c{number}@example.org": envelope(number) for number in range(MAILS)}
    outcomes = await send_all(postfix.url, list(envelopes.values()))
    assert all(isinstance(outcomes[address], Sent) for address in envelopes)

    await until(lambda: not postfix.queued(), "an empty queue", within=ARRIVAL_SECONDS, seen=postfix.queued)
    arrived = sink.mails()
    assert sorted(mail.rcpt_to[0] for mail in arrived) == sorted(envelopes)
    for mail in arrived:
        assert len(mail.rcpt_to) == 1
        sent = envelopes[mail.rcpt_to[0]]
        assert mail.mail_from == sent.mail_from
        assert without_trace(mail.data) == sent.data
    assert ("TLS connection established" in postfix.log.read_text()) == (postfix.certificate is not None)
    assert not complaints(postfix)


async def test_a_quoted_local_part_passes_postfix(postfix: Postfix, sink: Sink) -> None:
    """Postfix accepts and relays mails to quoted local parts, and the sink gets each of these mailboxes."""
    written = ['"Ada Lovelace"@example.org', '"a,b;<c>"@example.org', '"a\\"b\\\\"@example.org', '"ada..l"@example.org']
    addresses = [parse_address(each).address for each in written]
    outcomes = await send_all(postfix.url, [envelope(7, rcpt=address) for address in addresses])
    assert all(isinstance(outcomes[address], Sent) for address in addresses)

    await until(lambda: not postfix.queued(), "an empty queue", within=ARRIVAL_SECONDS, seen=postfix.queued)
    arrived = sink.mails()
    assert sorted(parse_address(mail.rcpt_to[0]).address for mail in arrived) == sorted(addresses)
    for mail in arrived:
        assert f"To: {parse_address(mail.rcpt_to[0]).address}\r\n".encode() in mail.data


def complaints(postfix: Postfix) -> list[str]:
    """Return the log lines about clients, except for connects and disconnects."""
    about_clients = [line for line in postfix.log.read_text().splitlines() if "/smtpd[" in line]
    assert any("client=localhost" in line or "client=unknown" in line for line in about_clients)
    complaint = re.compile(
        "warning|error|improper|reject|timeout|lost connection after (?!CONNECT)"
    )  # a probe of whether the port is open
    return [line for line in about_clients if complaint.search(line)]


async def send_all(url: str, envelopes: list[Envelope]) -> dict[str, Outcome]:
    """Send the mails, and return the outcome of each recipient, which must be reported exactly once."""
    outcomes: dict[str, Outcome] = {}
    finished = asyncio.Event()

    def report(address: str, outcome: Outcome) -> None:
        assert address not in outcomes
        outcomes[address] = outcome
        if len(outcomes) == len(envelopes):
            finished.set()

    async with Relays(SmtpAddress.parse_all(url), limits=Limits(connections=5)) as relays:
        for each in envelopes:
            relays.submit(each, partial(report, each.rcpt_to))
        await finished.wait()
    return outcomes


def envelope(number: int, *, rcpt: str = "") -> Envelope:
    compiled = compile_email(
        template=Template(Parts(subject="Für {{ first_name }}", text=TEXT, html=HTML)),
        sender="Garden Shop <shop@example.org>",
    )
    return compiled.write(
        rcpt=rcpt or f"c{number}@example.org",
        message_id=message_id(SENDOUT, number, "example.org"),
        date=datetime(2026, 3, 1, tzinfo=UTC),
        attributes={"first_name": f"Zoë {number}"},
        coupons={"spring": Coupon(f"CODE-{number}", is_code=True)},
    )


def without_trace(data: bytes) -> bytes:
    """Return the mail without the Received lines that relays prepend (RFC 5321 4.4)."""
    lines = data.split(b"\r\n")
    while lines[0].startswith(b"Received:"):
        del lines[0]
        while lines[0][:1] in (b" ", b"\t"):
            del lines[0]
    return b"\r\n".join(lines)
