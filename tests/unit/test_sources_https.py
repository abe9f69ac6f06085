import asyncio
import gzip
import socket
import threading
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from coupons.settings import Settings
from coupons.sources import Rules, Source, SourceError, SourceInterrupted, Text, https, network, open_source
from tests.smtp_server import KEY_AND_CERTIFICATE, server_tls
from tests.sources_servers import Reply, WebServer, redirect, web_server

CODES = b"".join(b"SPRING-%06d\n" % number for number in range(100_000))  # 1.4 MB
FILE = "/2026/codes.csv"


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate of the tests' servers, for `localhost`, is believed."""
    path = tmp_path / "localhost.pem"
    path.write_text(KEY_AND_CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def serving(replies: Mapping[str, Reply | bytes]) -> AbstractAsyncContextManager[WebServer]:
    return web_server(replies, tls=server_tls())


def rules(server: WebServer, **others: Any) -> Rules:
    given = {"import_hosts": server.host, "import_private_hosts": True, **others}
    return Rules.of(Settings(_env_file=None, **given))


async def content(url: str, allowed: Rules) -> bytes:
    async with open_source(url, allowed) as source:
        return b"".join([piece async for piece in Text(source, allowed)])


async def refusal(url: str, allowed: Rules) -> str:
    with pytest.raises(SourceError) as told:
        await content(url, allowed)
    return str(told.value)


async def interruption(url: str, allowed: Rules) -> str:
    with pytest.raises(SourceInterrupted) as told:
        await content(url, allowed)
    return str(told.value)


@pytest.mark.parametrize("reply", [Reply(CODES), Reply(CODES, chunked=True), Reply(CODES, says=-1)])
async def test_a_file_is_fetched(reply: Reply) -> None:
    """However its host says where it ends. The size is what the host says."""
    async with (
        serving({FILE: reply}) as server,
        open_source(f"{server.url}{FILE}?token=hidden", rules(server)) as source,
    ):
        assert source.name == "codes.csv"
        assert source.size == (None if reply.chunked or reply.says else len(CODES))
        assert b"".join([piece async for piece in source.pieces]) == CODES
    [head] = server.asked
    assert head.startswith(f"GET {FILE}?token=hidden HTTP/1.1\r\n")
    assert f"Host: {server.host}\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head


async def test_a_packed_file_is_unpacked() -> None:
    """Whatever it is called."""
    async with serving({FILE: Reply(gzip.compress(CODES))}) as server:
        assert await content(f"{server.url}{FILE}", rules(server)) == CODES


async def test_odd_characters_in_a_url_are_encoded() -> None:
    """A line end in a URL cannot become one of the request."""
    async with serving({"/spring%20codes%C3%A9%0D%0AX:.csv": Reply(CODES)}) as server:
        assert await content(f"{server.url}/spring codesé%0D%0AX:.csv?a=b c", rules(server)) == CODES


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "401 Unauthorized", "206 Partial Content", "304 x"]
)
async def test_a_file_that_is_not_given_is_refused(status: str) -> None:
    """Only 200 brings one; the status is told, the host's own words are not."""
    async with serving({FILE: Reply(b"hidden", status=status)}) as server:
        reason = await refusal(f"{server.url}{FILE}?token=hidden", rules(server))
    assert reason.startswith(f"codes.csv: localhost answers {status[:3]}")
    assert "hidden" not in reason


@pytest.mark.parametrize("status", ["500 x", "503 Service Unavailable", "429 Too Many Requests", "408 x"])
async def test_a_host_in_trouble_is_asked_again_later(status: str) -> None:
    """What will pass is not the end."""
    async with serving({FILE: Reply(status=status)}) as server:
        reason = await interruption(f"{server.url}{FILE}?token=hidden", rules(server))
    assert reason.startswith(f"codes.csv: localhost answers {status[:3]}")
    assert "hidden" not in reason


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
async def test_redirects_are_followed(status: str) -> None:
    """To a path, to a whole URL, to another configured host; the name stays that of the first."""
    async with serving({"/b.csv": Reply(CODES)}) as other:
        replies = {FILE: redirect("a.csv", status), "/2026/a.csv": redirect(f"{other.url}/b.csv?token=hidden", status)}
        async with serving(replies) as server:
            allowed = rules(server, import_hosts=f"{server.host} {other.host}")
            async with open_source(f"{server.url}{FILE}", allowed) as source:
                assert source.name == "codes.csv"
                assert b"".join([piece async for piece in source.pieces]) == CODES
    assert "?token=hidden" in other.asked[0]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("https://127.0.0.1/b.csv?token=hidden", "127.0.0.1:443 is not among the hosts"),
        ("https://localhost/b.csv?token=hidden", "localhost:443 is not among the hosts"),
        ("//evil.example/b.csv", "evil.example:443 is not among the hosts"),
        ("http://{host}/b.csv?token=hidden", "leads to http: is not taken"),
        ("file:///etc/passwd", "leads to file: is not taken"),
        ("https://user:hidden@{host}/b.csv", "neither user nor password"),
        ("https://[hidden/", "is not a URL"),
        ("https://localhost:99999999/", "is not a URL"),
    ],
)
async def test_redirects_stay_among_the_hosts(location: str, reason: str) -> None:
    """Each is checked like the first URL, and nobody is asked who may not be."""
    replies: dict[str, Reply | bytes] = {}
    async with serving(replies) as server:
        replies[FILE] = redirect(location.format(host=server.host))
        told = await refusal(f"{server.url}{FILE}?token=hidden", rules(server))
    assert reason in told
    assert "hidden" not in told
    assert len(server.asked) == 1


async def test_redirects_come_to_an_end() -> None:
    """Five are followed, a loop is not."""
    chain = {f"/{number}": redirect(f"/{number + 1}") for number in range(5)}
    async with serving({**chain, "/5": Reply(CODES), FILE: redirect(FILE)}) as server:
        assert await content(f"{server.url}/0", rules(server)) == CODES
        assert (
            await refusal(f"{server.url}{FILE}", rules(server)) == "codes.csv: more than 5 redirects are not followed"
        )
    assert len(server.asked) == 12


async def test_a_redirect_to_nowhere_is_refused() -> None:
    """One without a place is no answer."""
    async with serving({FILE: Reply(status="302 Found")}) as server:
        assert await refusal(f"{server.url}{FILE}", rules(server)) == "codes.csv: localhost answers 302 Found"


@pytest.mark.parametrize("url", ["https://{host}@evil.example{file}", "https://user:hidden@{host}{file}"])
async def test_passwords_are_not_taken(url: str) -> None:
    """A user before the host hides who is asked."""
    async with serving({}) as server:
        told = await refusal(url.format(host=server.host, file=FILE), rules(server))
    assert told == "codes.csv: a source's URL may hold neither user nor password"
    assert not server.asked


async def test_private_addresses_are_refused() -> None:
    """A configured name that leads to this machine gets no connection, unless the setting allows it."""
    connections = []
    async with await asyncio.start_server(lambda *_: connections.append(1), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        allowed = Rules.of(Settings(_env_file=None, import_hosts=f"localhost:{port} 127.0.0.1:{port}"))
        for host in ("localhost", "127.0.0.1"):
            told = await refusal(f"https://{host}:{port}{FILE}", allowed)
            assert told.startswith(f"{host} is not in the public network (COUPONS_IMPORT_PRIVATE_HOSTS")
    assert not connections


PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822", "2002:5db8:d822::1", "::ffff:1.1.1.1"]
PRIVATE = [
    *["0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.31.0.1", "192.168.0.1"],
    *["192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"],
    *["::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1"],
    *["2001:db8::1", "2001::1", "3fff::1", "5f00::1", "64:ff9b:1::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"],
    *["2002:7f00:1::1", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:1"],
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Those that anybody can reach, through a gateway too."""
    assert network.is_public(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Those of this machine, its network, a cloud's metadata, whatever IANA has set aside; in IPv6's clothes too."""
    assert not network.is_public(ip_address(address))


async def test_the_address_that_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is looked up once: a second answer could be another address (DNS rebinding)."""
    asked = []
    look_up = socket.getaddrinfo

    def counted(host: Any, *others: Any, **more: Any) -> Any:
        asked.append(host)
        return look_up("127.0.0.1" if len(asked) == 1 else "192.0.2.1", *others, **more)

    async with serving({FILE: Reply(CODES)}) as server:
        monkeypatch.setattr(socket, "getaddrinfo", counted)
        assert await content(f"{server.url}{FILE}", rules(server)) == CODES
    assert asked == ["localhost"]


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would look the name up themselves."""
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    async with serving({FILE: Reply(CODES)}) as server:
        assert await content(f"{server.url}{FILE}", rules(server)) == CODES


async def test_another_hosts_certificate_is_refused() -> None:
    """The name in the URL must be in it."""
    async with serving({FILE: Reply(CODES)}) as server:
        host = f"127.0.0.1:{server.port}"
        reason = await refusal(f"https://{host}{FILE}?token=hidden", rules(server, import_hosts=host))
    assert reason.startswith("codes.csv: the certificate of 127.0.0.1 does not hold: IP address mismatch")
    assert "hidden" not in reason
    assert not server.asked


async def test_an_unknown_authority_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate is believed that the machine's authorities vouch for."""
    monkeypatch.delenv("SSL_CERT_FILE")
    async with serving({FILE: Reply(CODES)}) as server:
        assert "the certificate of localhost does not hold" in await refusal(f"{server.url}{FILE}", rules(server))
    assert not server.asked


async def test_a_large_file_is_refused_before_it_is_read() -> None:
    """By the length that its host says."""
    async with serving({FILE: Reply(says=10**12, then="hang")}) as server:
        allowed = rules(server, import_max_bytes=1_000)
        reason = await refusal(f"{server.url}{FILE}", allowed)
        await asyncio.wait_for(server.left.wait(), 10)
    assert reason == "codes.csv has 1000000000000 bytes, at most 1000 are taken (COUPONS_IMPORT_MAX_BYTES)"


@pytest.mark.parametrize("reply", [Reply(CODES, chunked=True), Reply(CODES, says=-1)])
async def test_a_large_file_of_unknown_length_is_stopped(reply: Reply) -> None:
    """What comes is counted."""
    async with serving({FILE: reply}) as server:
        reason = await refusal(f"{server.url}{FILE}", rules(server, import_max_bytes=1_000_000))
    assert "at most 1000000 are taken" in reason


@pytest.mark.parametrize(
    "reply",
    [
        Reply(CODES, says=len(CODES) + 1),
        Reply(CODES, says=len(CODES) + 1, then="cut"),
        Reply(CODES, says=-1, then="cut"),
        Reply(b"5\r\nSPRIN\r\n5\r\nG-0", says=-1, headers=("Transfer-Encoding: chunked",)),
        Reply(b"5\r\nSPRIN\r\n", says=-1, headers=("Transfer-Encoding: chunked",)),
    ],
)
async def test_a_body_that_breaks_off_is_interrupted(reply: Reply) -> None:
    """A file is whole by its length, its last chunk, or the farewell of TLS; less is not taken for all."""
    async with serving({FILE: reply}) as server:
        reason = await interruption(f"{server.url}{FILE}?token=hidden", rules(server))
    assert reason.startswith("codes.csv: localhost ")
    assert "hidden" not in reason


async def test_nonsense_is_an_interruption() -> None:
    """Not HTTP, or no end of it."""
    for nonsense in (b"220 relay.example\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"):
        async with serving({FILE: nonsense}) as server:
            await interruption(f"{server.url}{FILE}", rules(server))


@pytest.mark.parametrize("reply", [Reply(says=10, then="hang"), b"HTTP/1.1 200 OK\r\nX: y"])
async def test_a_silent_host_is_left_in_time(reply: Reply | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of its headers or of the file."""
    monkeypatch.setattr(https, "READ_SECONDS", 0.2)
    async with serving({FILE: reply}) as server:
        assert await interruption(f"{server.url}{FILE}", rules(server)) == "codes.csv: localhost takes too long"


async def test_headers_must_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that always says a little more has a limit in all, redirects included."""
    monkeypatch.setattr(https, "OPEN_SECONDS", 0.3)
    async with serving({FILE: b"HTTP/1.1 200 OK\r\n"}) as server:
        assert await interruption(f"{server.url}{FILE}", rules(server)) == "codes.csv: localhost takes too long"
        await asyncio.wait_for(server.left.wait(), 10)


@pytest.mark.parametrize("reply", [Reply(b"A\n", says=10, then="hang"), b"HTTP/1.1 200 OK\r\n"])
async def test_whoever_waits_for_a_host_can_be_stopped(reply: Reply | bytes) -> None:
    """At once, in the middle of headers or file: the connection is closed, and no thread stays behind."""
    before = {each for each in threading.enumerate() if not each.name.startswith("asyncio")}
    async with serving({FILE: reply}) as server:
        reading = asyncio.create_task(content(f"{server.url}{FILE}", rules(server)))
        await asyncio.wait_for(server.hanging.wait(), 10)
        reading.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([reading])
            await server.left.wait()
        assert reading.cancelled()
    assert {each for each in threading.enumerate() if not each.name.startswith("asyncio")} <= before


async def test_leaving_ends_a_transfer() -> None:
    """Whoever has seen enough leaves, and the connection is closed; whoever still reads from it is told."""
    async with serving({FILE: Reply(CODES, says=10**9, then="hang")}) as server:
        async with open_source(f"{server.url}{FILE}", rules(server)) as source:
            assert await anext(source.pieces)
            reading = asyncio.create_task(_rest(source))
            await asyncio.wait_for(server.hanging.wait(), 10)
        async with asyncio.timeout(10):
            with pytest.raises(SourceInterrupted):
                await reading
            await server.left.wait()


async def test_what_was_left_has_no_good_end() -> None:
    """Nobody takes the end of a closed connection for that of the file."""
    async with serving({FILE: Reply(CODES, chunked=True)}) as server:
        async with open_source(f"{server.url}{FILE}", rules(server)) as source:
            assert source.size is None
        with pytest.raises(SourceInterrupted):
            await _rest(source)


async def _rest(source: Source) -> None:
    async for _ in source.pieces:
        pass


async def test_no_host_is_an_interruption() -> None:
    """Nobody listening, or a name that is not known for now, may be there again later."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for host in (f"localhost:{port}", f"no-such-host.invalid:{port}"):
            allowed = Rules.of(Settings(_env_file=None, import_hosts=host, import_private_hosts=True))
            reason = await interruption(f"https://{host}{FILE}?token=hidden", allowed)
            assert reason == f"codes.csv: {host.partition(':')[0]} cannot be reached or broke off"
