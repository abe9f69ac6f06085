"""Tests of fences that need no services, each in isolation."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest

from coupons.addresses import AddressError, parse_address
from coupons.errors import LeaseLost
from coupons.lease import renewed_lease
from coupons.mail import Envelope
from coupons.settings import Settings
from coupons.smtp import Relays, SmtpAddress, Timeouts, Uncertain
from coupons.smtp.commands import Capabilities
from coupons.smtp.connect import ConnectError, Connector
from coupons.smtp.queue import Mail
from coupons.smtp.session import Session
from coupons.states import Shortage
from coupons.store.deliveries import BatchList, Delivery
from coupons.store.messages import Message
from coupons.templates import engine
from coupons.templates.rendering import Coupon, Parts, RenderError, Template, TemplateError
from tests.smtp_server import serving
from workers.delivery.renderer import Renderer

SENDOUT = UUID(int=1)


async def test_a_renewal_without_an_answer_does_not_outlast_the_lease() -> None:
    """If the database does not respond, the work stops before another worker can claim it."""

    async def renew() -> None:
        await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        async with asyncio.timeout(5), renewed_lease(renew, every=0.05, expires_after=0.3):
            await asyncio.sleep(30)


# --- addresses and the relay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\r\n", "\n", "\0", "\x7f", "\x85", "\u2028"])
@pytest.mark.parametrize("address", ["ada{}@example.org", "ada@exam{}ple.org", "jürgen{}@example.org"])
def test_no_address_has_control_characters(address: str, character: str) -> None:
    """An address with control characters is rejected for this reason, even if it has other errors."""
    with pytest.raises(AddressError, match="has control characters"):
        parse_address(address.format(character))


@pytest.mark.parametrize("address", ["ada@example.org>\r\nRCPT TO:<eve@example.org", "ada@example.org\n"])
def test_no_address_can_end_its_smtp_command(address: str) -> None:
    """If an address could end its SMTP command, no byte of the mail is sent to the relay."""
    for envelope in (Envelope.plain("shop@example.org", address, b""), Envelope.plain(address, "ada@example.org", b"")):
        session = Session(Capabilities(), pipelining=True)
        with pytest.raises(ValueError, match="control character"):
            session.begin(Mail(envelope, lambda _: None))
        assert session.output() == b""


async def test_early_data_of_a_relay_is_rejected() -> None:
    """Early data of a relay is rejected: it may be injected, and would count as the reply to the first mail."""
    async with serving({"EHLO": "250 relay.example\r\n250 more\r\n"}) as server:
        address = SmtpAddress.parse(f"smtp://127.0.0.1:{server.port}")
        with pytest.raises(ConnectError, match="sent more than one reply"):
            await Connector(address, "shop.example", 5).connect()


async def test_an_abandoned_connection_is_aborted() -> None:
    """After a connection is abandoned, no more data of its mail is sent, in particular not the final dot."""
    given_up, rest = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A relay that reads no byte of the mail before the client has given up."""
        writer.write(b"220 relay.example\r\n")
        async for line in reader:
            if line.startswith(b"DATA"):
                break
            writer.write(b"250 ok\r\n")
        writer.write(b"354 go ahead\r\n")
        await given_up.wait()
        mail = b""
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 20):
                mail += piece
        writer.close()
        rest.set_result(mail)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    large = Envelope.plain("shop@example.org", "ada@example.org", (b"x" * 70 + b"\r\n") * 300_000)
    async with (
        server,
        Relays(SmtpAddress.parse_all(f"smtp://127.0.0.1:{port}"), timeouts=Timeouts(dot_seconds=0.1)) as relays,
    ):
        assert isinstance(await relays.send(large), Uncertain)
        given_up.set()
        assert not (await asyncio.wait_for(rest, 10)).endswith(b"\r\n.\r\n")


# --- the codes of a mail ---------------------------------------------------------------------------------------------


def renderer_for(*, shortage: str = "pause") -> Renderer:
    message = Message(
        id=1, name="m", version=1, sender="shop@example.org", reply_to=None,
        subject="A voucher", text='{{ coupon("a") }}', html=None,
        attributes=[], headers={}, created_at=datetime.now(UTC), lists=["a"], deleted_lists=[], files=[],
    )  # fmt: skip
    return Renderer(SENDOUT, message, [], [BatchList(1, "a", shortage, "Sorry.")], settings=Settings())  # type: ignore[arg-type] # one of two words


def test_a_recipient_without_a_code_gets_no_mail() -> None:
    """Without a code there is no mail if the list pauses on a shortage; otherwise the mail has the alternative text."""
    without = Delivery(1, "ada@example.org", {}, 0)
    with pytest.raises(RenderError, match="no code of list a"):
        renderer_for().render(without)
    assert b"Sorry." in renderer_for(shortage=Shortage.TEXT).render(without).envelope.data


def test_each_mail_has_its_own_code() -> None:
    """A mail contains its own code, and no code of an earlier mail."""
    renderer = renderer_for()
    mails = [
        renderer.render(Delivery(number, f"c{number}@example.org", {}, 0, codes={1: f"CODE-{number}"})).envelope.data
        for number in range(3)
    ]
    held = [[number for number in range(3) if f"CODE-{number}".encode() in mail] for mail in mails]
    assert held == [[0], [1], [2]]


# --- messages --------------------------------------------------------------------------------------------------------


def test_rendering_has_an_instruction_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering stops at an instruction limit, in case a message passes the limits of the analysis."""
    monkeypatch.setattr(engine, "FUEL", 100)
    template = Template(Parts("A voucher", "{{ a }}" * 100, None))
    with pytest.raises(RenderError, match="OutOfFuel"):
        template.render({"a": ""}, {})


@pytest.mark.parametrize("name", ["range", "dict", "debug", "namespace", "secret"])
def test_a_message_reaches_only_its_attributes(name: str) -> None:
    """A missing attribute is an error, even if the engine has a global with that name."""
    try:
        template = Template(Parts("A voucher", f"{{{{ {name} }}}}", None))
    except TemplateError:
        return
    with pytest.raises(RenderError, match=name):
        template.render({}, {})
    with pytest.raises(RenderError):
        template._render("text", {})


def test_a_value_in_html_is_escaped() -> None:
    """A value in HTML is escaped in both ways of rendering."""
    template = Template(Parts("A voucher", None, '<p>{{ name }} {{ coupon("a") }}'))
    coupons = {"a": Coupon("<1>", is_code=True)}
    for rendered in (template.render({"name": "<b>"}, coupons), template.render_varying({"name": "<b>"}, coupons)):
        assert rendered.html
        assert "&lt;b&gt; &lt;1&gt;" in rendered.html
