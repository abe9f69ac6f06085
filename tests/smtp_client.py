"""Send mails to scripted servers."""

from dataclasses import replace
from functools import partial

from coupons.mail import Envelope
from coupons.smtp import Limits, Outcome, Relays, Sent, SmtpAddress, Timeouts
from coupons.smtp.replies import MAX_EXPLANATION
from tests.smtp_server import Script, ScriptedServer, serving
from tests.waiting import until

MAIL = Envelope.plain("shop@example.org", "ada@example.org", b"Subject: Hello\r\n\r\n.Ada\r\n..\r\n")
SENT_AS = b"Subject: Hello\r\n\r\n..Ada\r\n...\r\n.\r\n"


def mail_to(name: str) -> Envelope:
    return Envelope.plain(
        "shop@example.org", f"{name}@example.org", b"Subject: Hello\r\n\r\n" + name.encode() + b"\r\n"
    )


def relays_to(
    *servers: ScriptedServer,
    connections: int = 1,
    mails_per_connection: int = 0,
    idle_seconds: float = 30,
    backoff_seconds: float = 0.02,
    closing_seconds: float = 10,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 a frozen value
) -> Relays:
    return Relays(
        SmtpAddress.parse_all(" ".join(f"smtp://127.0.0.1:{server.port}" for server in servers)),
        limits=Limits(
            connections=connections,
            mails_per_connection=mails_per_connection,
            idle_seconds=idle_seconds,
            backoff_seconds=backoff_seconds,
        ),
        local_hostname="shop.example",
        closing_seconds=closing_seconds,
        timeouts=timeouts,
    )


async def outcome_of(script: Script, timeouts: Timeouts = Timeouts()) -> Outcome:  # noqa: B008 a frozen value
    """Return the outcome of a mail on a new connection to a relay with this script."""
    async with serving(script) as server, relays_to(server, timeouts=timeouts) as relays:
        return await relays.send(MAIL)


def echoed(outcome: Outcome, address: str = MAIL.rcpt_to) -> Outcome:
    """Return the outcome with the whole reply of a scripted server, which ends with the address."""
    if isinstance(outcome, Sent):
        return outcome
    return replace(outcome, explanation=f"{outcome.explanation} <{address}>"[:MAX_EXPLANATION])


async def outcomes_of(relays: Relays, *names: str) -> dict[str, Outcome]:
    """Submit mails to all these names at once and return their outcomes."""
    outcomes: dict[str, Outcome] = {}

    def report(name: str, outcome: Outcome) -> None:
        assert name not in outcomes, "reported twice"
        outcomes[name] = outcome

    for name in names:
        relays.submit(mail_to(name), partial(report, name))
    await until(lambda: len(outcomes) == len(names), f"{len(names)} outcomes", seen=lambda: outcomes)
    return outcomes
