"""Postfix refuses: its real replies mean what the table of replies says, and use up no sendout."""

from collections.abc import AsyncIterator

import pytest

from coupons.database import Connection, Pool, open_pool
from coupons.mail import Envelope
from coupons.smtp import Deferred, Limits, Outcome, Refused, Relays, Sent, SmtpAddress, Subject, reply_codes
from sandbox.services import Sink
from tests.deliver_worker import assigned_codes, becomes, begin, delivering, resume
from tests.postfix import private_postfix, reload
from tests.waiting import until

RECIPIENTS = 120

# The braces of Postfix are doubled, because the text is formatted. Postfix refuses most senders only at RCPT.
REFUSING = """
relay_domains = known.example
relay_recipient_maps = inline:{{ ada@known.example=ok }}
smtpd_sender_restrictions =
    check_sender_access inline:{{ {{ lost@example.org = 550 5.1.8 Sender address rejected: Domain not found }} }}
    reject_non_fqdn_sender
smtpd_recipient_restrictions =
    check_recipient_access inline:{{
        {{ rejected@example.org = REJECT }}
        {{ full@example.org = 552 5.2.2 mailbox full }}
        {{ over@example.org = 550 5.4.5 Daily user sending quota exceeded }}
        {{ later@example.org = 450 4.7.1 try again later }}
    }}
    permit_mynetworks
    reject
header_checks = regexp:{home}/header_checks
message_size_limit = 20000
smtpd_discard_ehlo_keywords = size
"""
AT_MAIL = """
smtpd_delay_reject = no
smtpd_sender_restrictions = check_sender_access inline:{{ {{ bad@example.org = REJECT }} }}
mynetworks = 10.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = permit
smtpd_client_message_rate_limit = 4
smtpd_client_event_limit_exceptions =
"""
WITH_TLS_ONLY = "smtpd_tls_security_level = encrypt\n"
ANNOUNCING = "message_size_limit = 2000\n"
REJECT_ALL = "/^Subject:/ REJECT\n"


pytestmark = pytest.mark.usefixtures("postfix_is_installed")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=10) as pool:
        yield pool


async def reply_to(
    url: str, *, sender: str = "shop@example.org", to: str = "ada@example.org", subject: str = "Hello", size: int = 0
) -> tuple[type[Outcome], Subject | None, str]:
    """Send one mail to a relay; return the kind of its outcome, the subject and the codes of the reply."""
    data = f"Subject: {subject}\r\n\r\n".encode() + b"x" * 70 * (size > 0) + b"\r\nHello." * (size // 8) + b"\r\n"
    async with Relays(SmtpAddress.parse_all(url), limits=Limits(connections=1)) as relays:
        outcome = await relays.send(Envelope.plain(sender, to, data))
    subject_of_reply = outcome.subject if isinstance(outcome, Refused | Deferred) else None
    return type(outcome), subject_of_reply, reply_codes(outcome.explanation)


async def test_postfix_replies_mean_what_the_table_says(sink: Sink) -> None:
    """Each reply is one that Postfix really gives, at RCPT or to the final dot."""
    with private_postfix(sink.url.removeprefix("smtp://"), main=REFUSING) as postfix:
        (postfix.home / "header_checks").write_text("/^Subject: forbidden/ REJECT\n")
        url = postfix.url
        assert await reply_to(url) == (Sent, None, "250 2.0.0")
        assert await reply_to(url, to="ada@known.example") == (Sent, None, "250 2.0.0")
        assert await reply_to(url, to="bob@known.example") == (Refused, Subject.RECIPIENT, "550 5.1.1")
        assert await reply_to(url, to="full@example.org") == (Refused, Subject.RECIPIENT, "552 5.2.2")
        assert await reply_to(url, to="rejected@example.org") == (Refused, Subject.SENDER_OR_RECIPIENT, "554 5.7.1")
        assert await reply_to(url, sender="lost@example.org") == (Refused, Subject.SENDER, "550 5.1.8")
        assert await reply_to(url, sender="shop@short") == (Refused, Subject.SENDER_OR_RECIPIENT, "504 5.5.2")
        assert await reply_to(url, subject="forbidden") == (Refused, Subject.MESSAGE, "550 5.7.1")
        assert await reply_to(url, size=30_000) == (Refused, Subject.MESSAGE, "552 5.3.4")
        assert await reply_to(url, to="over@example.org") == (Deferred, Subject.QUOTA, "550 5.4.5")
        assert await reply_to(url, to="later@example.org") == (Deferred, Subject.RELAY, "450 4.7.1")


async def test_postfix_replies_to_mail_are_about_the_sender_or_the_relay(sink: Sink) -> None:
    """It also refuses to relay for this network, and limits the rate."""
    with private_postfix(sink.url.removeprefix("smtp://"), main=AT_MAIL) as postfix:
        url = postfix.url
        assert await reply_to(url, sender="bad@example.org") == (Refused, Subject.SENDER, "554 5.7.1")
        assert await reply_to(url) == (Refused, Subject.SENDER_OR_RECIPIENT, "554 5.7.1")
        found = [await reply_to(url) for _ in range(5)]
        assert found[-1] == (Deferred, Subject.RELAY, "450 4.7.1")


async def test_postfix_that_requires_tls_is_about_the_account(sink: Sink) -> None:
    """The relay announces its size limit, so a larger mail is not even begun."""
    with private_postfix(sink.url.removeprefix("smtp://"), tls=True, main=WITH_TLS_ONLY + ANNOUNCING) as postfix:
        assert await reply_to(postfix.plain_url) == (Refused, Subject.ACCOUNT, "530 5.7.0")
        assert await reply_to(postfix.url) == (Sent, None, "250 2.0.0")
        assert await reply_to(postfix.url, size=5_000) == (Refused, Subject.MESSAGE, "552 5.3.4")


async def test_a_sendout_survives_header_checks_that_reject_all_mails(
    connection: Connection, pool: Pool, sink: Sink
) -> None:
    """When the operator has removed the check and resumes the sendout, each recipient gets the code assigned before."""
    sendout_id = await begin(connection, RECIPIENTS)
    with private_postfix(sink.url.removeprefix("smtp://"), main=REFUSING) as postfix:
        checks = postfix.home / "header_checks"
        checks.write_text(REJECT_ALL)
        async with delivering(pool, postfix.url):
            found = await becomes(connection, "paused", sendout_id)
            assert found.reason == "the relay refuses the message: 550 5.7.1"
            assert (found.sent, found.refused, found.remaining) == (0, 0, RECIPIENTS)
            codes = await assigned_codes(connection)
            checks.write_text("")
            reload(postfix)
            await resume(connection, sendout_id)
            found = await becomes(connection, "finished", sendout_id)
            assert (found.sent, found.refused, found.uncertain) == (RECIPIENTS, 0, 0)
        await until(lambda: len(sink.mails()) == RECIPIENTS, "all mails", within=60)
    texts = [mail.data.decode() for mail in sink.mails()]
    assert len({mail.rcpt_to[0] for mail in sink.mails()}) == RECIPIENTS
    assert all(sum(code in text for text in texts) == 1 for code in codes.values())
