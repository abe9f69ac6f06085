import asyncio
import base64
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from coupons.smtp import Outcome, Relays, Sent, SmtpAddress, Unreachable
from tests.smtp_client import MAIL, SENT_AS, outcomes_of
from tests.smtp_server import KEY_AND_CERTIFICATE, PIPELINING, Script, server_tls, serving


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "localhost.pem"
    path.write_text(KEY_AND_CERTIFICATE)
    return path


STARTTLS: Script = {
    "EHLO": "250-relay.example\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n",
}


async def send_to(url: str) -> Outcome:
    async with Relays(SmtpAddress.parse_all(url), local_hostname="shop.example") as relays:
        return await relays.send(MAIL)


async def test_the_password_is_sent_after_tls(certificate: Path) -> None:
    """With STARTTLS, AUTH is sent after the connection is encrypted and the certificate verified."""
    async with serving(STARTTLS, tls=server_tls()) as server:
        url = f"smtp://shop:s%40cret@localhost:{server.port}?tls=starttls&ca={certificate}"
        assert isinstance(await send_to(url), Sent)
    assert server.verbs == [["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"]]
    assert base64.b64decode(server.commands[0][3].split()[2]) == b"\0shop\0s@cret"


async def test_smtps_uses_tls_from_the_start(certificate: Path) -> None:
    """A relay URL with smtps:// is encrypted from the first byte."""
    async with serving(tls=server_tls(), implicit=True) as server:
        assert isinstance(await send_to(f"smtps://localhost:{server.port}?ca={certificate}"), Sent)


async def test_no_password_is_sent_without_tls() -> None:
    """A relay that does not offer STARTTLS, or an attacker who hides the offer, gets neither password nor mail."""
    async with serving({"EHLO": "250-relay.example\r\n250 AUTH PLAIN\r\n"}) as server:
        outcome = await send_to(f"smtp://shop:secret@127.0.0.1:{server.port}?tls=starttls")
    assert isinstance(outcome, Unreachable)
    assert outcome.explanation.endswith("UTC: SMTP STARTTLS extension not supported by server.")
    assert server.verbs == [["EHLO"]]


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_wrong_certificate_gets_no_password(certificate: Path, implicit: bool, trusted: bool) -> None:
    """Neither a certificate of an unknown authority nor another host's certificate is accepted."""
    async with serving(STARTTLS, tls=server_tls(), implicit=implicit) as server:
        scheme, option = ("smtps", "") if implicit else ("smtp", "tls=starttls&")
        host, ca = ("127.0.0.1", f"ca={certificate}") if trusted else ("localhost", "")
        query = f"?{option}{ca}".rstrip("?&")
        outcome = await send_to(f"{scheme}://shop:secret@{host}:{server.port}{query}")
    assert isinstance(outcome, Unreachable)
    assert "certificate verification failed" in outcome.explanation
    assert not any("AUTH" in verbs or "MAIL" in verbs for verbs in server.verbs)


async def test_a_rejected_password_is_not_shown() -> None:
    """A relay's reply to a wrong password may contain the password, so only its codes are kept."""
    secret = base64.b64encode(b"\0shop\0secret").decode()
    async with serving({"AUTH": f"535 5.7.8 cannot take {secret}\r\n"}) as server:
        url = f"smtp://shop:secret@127.0.0.1:{server.port}"
        outcome = await send_to(url)
        checked = await Relays(SmtpAddress.parse_all(url)).check()
    assert isinstance(outcome, Unreachable)
    assert outcome.explanation.endswith("UTC: the relay rejected the user name or password: 535 5.7.8")
    assert checked == f"relay 127.0.0.1:{server.port}: the relay rejected the user name or password: 535 5.7.8"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("implicit", [True, False])
def test_mails_are_pipelined_through_tls(
    certificate: Path, implicit: bool, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A session works the same over an encrypted transport, on asyncio's loop and on uvloop."""
    names = [f"r{number}" for number in range(20)]

    async def scenario() -> None:
        script = PIPELINING if implicit else STARTTLS
        async with serving(script, tls=server_tls(), implicit=implicit) as server:
            url = f"smtps://localhost:{server.port}?ca={certificate}"
            if not implicit:
                url = f"smtp://localhost:{server.port}?tls=starttls&ca={certificate}"
            async with Relays(SmtpAddress.parse_all(url), local_hostname="shop.example") as relays:
                assert await relays.send(MAIL) == Sent("250 2.0.0 queued")
                outcomes = await outcomes_of(relays, *names)
        assert set(outcomes.values()) == {Sent("250 2.0.0 queued")}
        assert server.mails[0] == SENT_AS
        assert sorted(server.accepted[1:]) == sorted(f"TO:<{name}@example.org>" for name in names)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
