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
from coupons.sources import Source, SourceError, SourceLimits, SourceUnavailable, Text, https, network, open_source
from tests.smtp_server import KEY_AND_CERTIFICATE, server_tls
from tests.sources_servers import Reply, WebServer, redirect, web_server

CODES = b"".join(b"SPRING-%06d\n" % number for number in range(100_000))  # 1.4 MB
FILE = "/2026/codes.csv"


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the certificate of the test servers, for `localhost`, trusted."""
    path = tmp_path / "localhost.pem"
    path.write_text(KEY_AND_CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def serving(replies: Mapping[str, Reply | bytes]) -> AbstractAsyncContextManager[WebServer]:
    return web_server(replies, tls=server_tls())


def limits(server: WebServer, **others: Any) -> SourceLimits:
    given = {"import_hosts": server.host, "import_private_hosts": True, **others}
    return SourceLimits.from_settings(Settings(_env_file=None, **given))


async def content(url: str, limits: SourceLimits) -> bytes:
    async with open_source(url, limits) as source:
        return b"".join([piece async for piece in Text(source, limits)])


async def rejection(url: str, limits: SourceLimits) -> str:
    with pytest.raises(SourceError) as caught:
        await content(url, limits)
    return str(caught.value)


async def unavailability(url: str, limits: SourceLimits) -> str:
    with pytest.raises(SourceUnavailable) as caught:
        await content(url, limits)
    return str(caught.value)


@pytest.mark.parametrize("reply", [Reply(CODES), Reply(CODES, chunked=True), Reply(CODES, declared_length=-1)])
async def test_a_file_is_fetched(reply: Reply) -> None:
    """A file is fetched however the host marks its end, and its size is the declared length."""
    async with (
        serving({FILE: reply}) as server,
        open_source(f"{server.url}{FILE}?token=hidden", limits(server)) as source,
    ):
        assert source.name == "codes.csv"
        assert source.size == (None if reply.chunked or reply.declared_length else len(CODES))
        assert b"".join([piece async for piece in source.pieces]) == CODES
    [head] = server.requests
    assert head.startswith(f"GET {FILE}?token=hidden HTTP/1.1\r\n")
    assert f"Host: {server.host}\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head


async def test_a_login_page_is_refused_with_the_name_of_its_host() -> None:
    """A host that answers with a page instead of the file sent no list, and the error names the host and the remedy."""
    for page, what in (
        (b"<!DOCTYPE html>\n<html><title>Login</title></html>", "a web page"),
        (b'{"error": 1}', "JSON"),
    ):
        async with serving({FILE: Reply(page)}) as server:
            with pytest.raises(SourceError) as caught:
                await content(f"{server.url}{FILE}?token=hidden", limits(server))
        assert str(caught.value).startswith(
            f"codes.csv, which localhost sent, looks like {what}, not a list of codes or recipients: "
        )


async def test_a_compressed_file_is_decompressed() -> None:
    """A compressed file is decompressed, whatever its name."""
    async with serving({FILE: Reply(gzip.compress(CODES))}) as server:
        assert await content(f"{server.url}{FILE}", limits(server)) == CODES


async def test_special_characters_in_a_url_are_encoded() -> None:
    """A line end in a URL cannot add a line to the request."""
    async with serving({"/spring%20codes%C3%A9%0D%0AX:.csv": Reply(CODES)}) as server:
        assert await content(f"{server.url}/spring codesé%0D%0AX:.csv?a=b c", limits(server)) == CODES


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "401 Unauthorized", "206 Partial Content", "304 x"]
)
async def test_other_statuses_are_rejected(status: str) -> None:
    """Only status 200 delivers a file. The error contains the status, but no text from the host."""
    async with serving({FILE: Reply(b"hidden", status=status)}) as server:
        reason = await rejection(f"{server.url}{FILE}?token=hidden", limits(server))
    assert reason.startswith(f"codes.csv: localhost responded with {status[:3]}")
    assert "hidden" not in reason


@pytest.mark.parametrize("status", ["500 x", "503 Service Unavailable", "429 Too Many Requests", "408 x"])
async def test_temporary_statuses_are_retried_later(status: str) -> None:
    """A status of a temporary failure makes the source unavailable, so that the import is retried later."""
    async with serving({FILE: Reply(status=status)}) as server:
        reason = await unavailability(f"{server.url}{FILE}?token=hidden", limits(server))
    assert reason.startswith(f"codes.csv: localhost responded with {status[:3]}")
    assert "hidden" not in reason


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
async def test_redirects_are_followed(status: str) -> None:
    """Redirects to a path, a whole URL or another allowed host work. The source keeps the name from the first URL."""
    async with serving({"/b.csv": Reply(CODES)}) as other:
        replies = {FILE: redirect("a.csv", status), "/2026/a.csv": redirect(f"{other.url}/b.csv?token=hidden", status)}
        async with serving(replies) as server:
            allowed = limits(server, import_hosts=f"{server.host} {other.host}")
            async with open_source(f"{server.url}{FILE}", allowed) as source:
                assert source.name == "codes.csv"
                assert b"".join([piece async for piece in source.pieces]) == CODES
    assert "?token=hidden" in other.requests[0]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("https://127.0.0.1/b.csv?token=hidden", "127.0.0.1:443 is not an allowed host"),
        ("https://localhost/b.csv?token=hidden", "localhost:443 is not an allowed host"),
        ("//evil.example/b.csv", "evil.example:443 is not an allowed host"),
        ("http://{host}/b.csv?token=hidden", "redirects to a URL that is not https"),
        ("file:///etc/passwd", "redirects to a URL that is not https"),
        ("https://user:hidden@{host}/b.csv", "must not contain a user or password"),
        ("https://[hidden/", "is not a valid URL"),
        ("https://localhost:99999999/", "is not a valid URL"),
    ],
)
async def test_redirects_stay_among_the_allowed_hosts(location: str, reason: str) -> None:
    """The URL of each redirect is checked like the first URL, and no other host is contacted."""
    replies: dict[str, Reply | bytes] = {}
    async with serving(replies) as server:
        replies[FILE] = redirect(location.format(host=server.host))
        reason_given = await rejection(f"{server.url}{FILE}?token=hidden", limits(server))
    assert reason in reason_given
    assert "hidden" not in reason_given
    assert "b.csv" not in reason_given  # the host chose this name
    assert len(server.requests) == 1


async def test_the_number_of_redirects_is_limited() -> None:
    """Five redirects are followed; a loop of redirects is rejected."""
    chain = {f"/{number}": redirect(f"/{number + 1}") for number in range(5)}
    async with serving({**chain, "/5": Reply(CODES), FILE: redirect(FILE)}) as server:
        assert await content(f"{server.url}/0", limits(server)) == CODES
        assert await rejection(f"{server.url}{FILE}", limits(server)) == "codes.csv: more than 5 redirects"
    assert len(server.requests) == 12


async def test_a_redirect_without_a_location_is_rejected() -> None:
    """A redirect without a location is rejected, because it leads nowhere."""
    async with serving({FILE: Reply(status="302 Found")}) as server:
        assert await rejection(f"{server.url}{FILE}", limits(server)) == "codes.csv: localhost responded with 302 Found"


@pytest.mark.parametrize("url", ["https://{host}@evil.example{file}", "https://user:hidden@{host}{file}"])
async def test_passwords_in_urls_are_rejected(url: str) -> None:
    """A URL with a user or password is rejected, because a user before the host can conceal the real host."""
    async with serving({}) as server:
        reason_given = await rejection(url.format(host=server.host, file=FILE), limits(server))
    assert reason_given == "codes.csv: a source URL must not contain a user or password"
    assert not server.requests


async def test_private_addresses_are_rejected() -> None:
    """An allowed name that resolves to a private address gets no connection, unless the setting permits it."""
    connections = []
    async with await asyncio.start_server(lambda *_: connections.append(1), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        allowed = SourceLimits.from_settings(
            Settings(_env_file=None, import_hosts=f"localhost:{port} 127.0.0.1:{port}")
        )
        for host in ("localhost", "127.0.0.1"):
            reason_given = await rejection(f"https://{host}:{port}{FILE}", allowed)
            assert reason_given.startswith(f"{host} is not a public host (COUPONS_IMPORT_PRIVATE_HOSTS")
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
    """Addresses that everyone can reach are public, also through a gateway."""
    assert network.is_public(ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Addresses of this machine, its network, cloud metadata and special IANA ranges are private, also inside IPv6."""
    assert not network.is_public(ip_address(address))


async def test_the_connection_uses_the_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is resolved once, because a second lookup could give another address (DNS rebinding)."""
    lookups = []
    original = socket.getaddrinfo

    def counted(host: Any, *others: Any, **more: Any) -> Any:
        lookups.append(host)
        return original("127.0.0.1" if len(lookups) == 1 else "192.0.2.1", *others, **more)

    async with serving({FILE: Reply(CODES)}) as server:
        monkeypatch.setattr(socket, "getaddrinfo", counted)
        assert await content(f"{server.url}{FILE}", limits(server)) == CODES
    assert lookups == ["localhost"]


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment are ignored, because a proxy would resolve the name itself."""
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    async with serving({FILE: Reply(CODES)}) as server:
        assert await content(f"{server.url}{FILE}", limits(server)) == CODES


async def test_a_certificate_of_another_host_is_rejected() -> None:
    """A certificate must contain the host name of the URL."""
    async with serving({FILE: Reply(CODES)}) as server:
        host = f"127.0.0.1:{server.port}"
        reason = await rejection(f"https://{host}{FILE}?token=hidden", limits(server, import_hosts=host))
    assert reason.startswith("codes.csv: certificate verification failed for 127.0.0.1: IP address mismatch")
    assert "hidden" not in reason
    assert not server.requests


async def test_an_unknown_authority_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only certificates of authorities that the machine trusts are accepted."""
    monkeypatch.delenv("SSL_CERT_FILE")
    async with serving({FILE: Reply(CODES)}) as server:
        assert "certificate verification failed for localhost" in await rejection(f"{server.url}{FILE}", limits(server))
    assert not server.requests


async def test_a_large_file_is_rejected_before_it_is_read() -> None:
    """A file is rejected before it is read if the host declares a length above the limit."""
    async with serving({FILE: Reply(declared_length=10**12, then="hang")}) as server:
        allowed = limits(server, import_max_bytes=1_000)
        reason = await rejection(f"{server.url}{FILE}", allowed)
        await asyncio.wait_for(server.disconnected.wait(), 10)
    assert reason == "codes.csv: 1000000000000 bytes exceed the limit of 1000 (COUPONS_IMPORT_MAX_BYTES)"


@pytest.mark.parametrize("reply", [Reply(CODES, chunked=True), Reply(CODES, declared_length=-1)])
async def test_a_large_file_of_unknown_length_is_stopped(reply: Reply) -> None:
    """If no length is declared, the received bytes are counted, and reading stops at the limit."""
    async with serving({FILE: reply}) as server:
        reason = await rejection(f"{server.url}{FILE}", limits(server, import_max_bytes=1_000_000))
    assert "exceed the limit of 1000000" in reason


@pytest.mark.parametrize(
    "reply",
    [
        Reply(CODES, declared_length=len(CODES) + 1),
        Reply(CODES, declared_length=len(CODES) + 1, then="cut"),
        Reply(CODES, declared_length=-1, then="cut"),
        Reply(b"5\r\nSPRIN\r\n5\r\nG-0", declared_length=-1, headers=("Transfer-Encoding: chunked",)),
        Reply(b"5\r\nSPRIN\r\n", declared_length=-1, headers=("Transfer-Encoding: chunked",)),
    ],
)
async def test_a_truncated_body_is_unavailable(reply: Reply) -> None:
    """A file that ends before its declared length, last chunk or TLS close_notify makes the source unavailable."""
    async with serving({FILE: reply}) as server:
        reason = await unavailability(f"{server.url}{FILE}?token=hidden", limits(server))
    assert reason.startswith("codes.csv: localhost ")
    assert "hidden" not in reason


async def test_a_delayed_reader_does_not_end_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that gets no processor time while it should gather data reads on, instead of truncating the file."""
    monkeypatch.setattr(https, "GATHER_SECONDS", -1)
    async with serving({FILE: Reply(CODES, declared_length=-1)}) as server:
        assert await content(f"{server.url}{FILE}", limits(server)) == CODES


async def test_an_invalid_response_is_unavailable() -> None:
    """A response that is not HTTP or has endless headers makes the source unavailable."""
    for nonsense in (b"220 relay.example\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"):
        async with serving({FILE: nonsense}) as server:
            await unavailability(f"{server.url}{FILE}", limits(server))


@pytest.mark.parametrize("reply", [Reply(declared_length=10, then="hang"), b"HTTP/1.1 200 OK\r\nX: y"])
async def test_a_silent_host_times_out(reply: Reply | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that goes silent in its headers or in the file makes the source unavailable after a time limit."""
    monkeypatch.setattr(https, "READ_SECONDS", 0.2)
    async with serving({FILE: reply}) as server:
        assert await unavailability(f"{server.url}{FILE}", limits(server)) == "codes.csv: localhost timed out"


async def test_headers_have_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """All headers, including those of redirects, have one time limit, even if the host keeps sending a little."""
    monkeypatch.setattr(https, "OPEN_SECONDS", 0.3)
    async with serving({FILE: b"HTTP/1.1 200 OK\r\n"}) as server:
        assert await unavailability(f"{server.url}{FILE}", limits(server)) == "codes.csv: localhost timed out"
        await asyncio.wait_for(server.disconnected.wait(), 10)


@pytest.mark.parametrize("reply", [Reply(b"A\n", declared_length=10, then="hang"), b"HTTP/1.1 200 OK\r\n"])
async def test_a_read_can_be_cancelled(reply: Reply | bytes) -> None:
    """Reading headers or the file can be cancelled immediately. The connection is closed and no thread remains."""
    before = {each for each in threading.enumerate() if not each.name.startswith("asyncio")}
    async with serving({FILE: reply}) as server:
        reading = asyncio.create_task(content(f"{server.url}{FILE}", limits(server)))
        await asyncio.wait_for(server.hanging.wait(), 10)
        reading.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([reading])
            await server.disconnected.wait()
        assert reading.cancelled()
    assert {each for each in threading.enumerate() if not each.name.startswith("asyncio")} <= before


async def test_leaving_the_context_aborts_a_transfer() -> None:
    """Leaving the context closes the connection, and a pending read raises an error."""
    async with serving({FILE: Reply(CODES, declared_length=10**9, then="hang")}) as server:
        async with open_source(f"{server.url}{FILE}", limits(server)) as source:
            assert await anext(source.pieces)
            reading = asyncio.create_task(_rest(source))
            await asyncio.wait_for(server.hanging.wait(), 10)
        async with asyncio.timeout(10):
            with pytest.raises(SourceUnavailable):
                await reading
            await server.disconnected.wait()


async def test_a_closed_source_does_not_end_regularly() -> None:
    """Closing a source while it is read is not mistaken for the end of the file."""
    async with serving({FILE: Reply(CODES, chunked=True)}) as server:
        async with open_source(f"{server.url}{FILE}", limits(server)) as source:
            assert source.size is None
        with pytest.raises(SourceUnavailable):
            await _rest(source)


async def _rest(source: Source) -> None:
    async for _ in source.pieces:
        pass


async def test_an_unreachable_host_is_unavailable() -> None:
    """A host without a listener or with an unresolved name makes the source unavailable, because it may come back."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for host in (f"localhost:{port}", f"no-such-host.invalid:{port}"):
            allowed = SourceLimits.from_settings(Settings(_env_file=None, import_hosts=host, import_private_hosts=True))
            reason = await unavailability(f"https://{host}{FILE}?token=hidden", allowed)
            assert reason == f"codes.csv: {host.partition(':')[0]} unreachable or connection lost"
