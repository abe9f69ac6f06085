"""No URL, query or form makes the console or the API fail: the response to any of them is a page or an error of 4xx."""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from urllib.parse import quote
from uuid import UUID

import pytest
from httpx import AsyncClient
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Mount, Route

from coupons.database import Connection, open_pool
from coupons.settings import Settings
from producers.web.app import routes
from tests.factories import add_group, add_list, save_message
from tests.fuzz.fuzzing import fuzzed
from tests.web import SAME_ORIGIN, Queues, web_client

DIGITS = "9" * 5_000
WORDS = (
    *("\0", "a\0b", DIGITS, f"-{DIGITS}", "0", "-1", "1e9", "9" * 19, "", ".", "..", "../..", "/", "//", "%", "%00"),
    *("\ud800", "\u2028", "\uffff", "ä" * 300, "x" * 5_000, "Spring", " spring ", "'; --", "{{ 1 }}", "\r\nX: y"),
    *("sending", "spring-10", "customers", "spring-voucher", "nan", "true", "null", "resend", "refused", "csv"),
    *(str(UUID(int=0)), "0000", "ada@example.org"),
)
TEXTS = st.sampled_from(WORDS) | st.text(max_size=20)
NAMES = st.sampled_from((
    *("state", "command", "name", "limit", "before", "after", "requested", "resolution", "mails", "old", "new", "mode"),
    *("column", "separator", "encoding", "header", "group", "first"),
))  # fmt: skip
FIELDS = st.dictionaries(NAMES, TEXTS, max_size=3)
PARAMETER = re.compile(r"\{[^}]*\}")


def paths(found: Sequence[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The method and the path of each route, with its parameters in braces."""
    for route in found:
        match route:
            case Route():
                yield from ((method, prefix + route.path) for method in sorted(route.methods or ()))
            case Mount() if route.routes:
                yield from paths(route.routes, prefix + route.path)
            case Mount():
                yield "GET", f"{prefix}{route.path}/{{name}}"


def as_text(text: str) -> str:
    """The text without lone surrogates, which no client can send."""
    return text.encode(errors="replace").decode()


@pytest.fixture
async def site(
    connection: Connection, database_url: str, broker_url: str
) -> AsyncIterator[tuple[AsyncClient, list[tuple[str, str]]]]:
    """Provide a client, and the method and the path of each route."""
    await Queues(broker_url).declare()
    await add_list(connection, "spring-10", 3)
    await add_group(connection, "customers", 3)
    await save_message(connection, "spring-voucher", "spring-10")
    async with open_pool(database_url, size=1) as pool:
        found = sorted(paths(routes(settings=Settings(_env_file=None), pool=pool)))
    async with web_client(database_url=database_url, broker_url=broker_url) as client:
        yield client, found


@given(data=st.data())
@fuzzed(3, HealthCheck.function_scoped_fixture)
async def test_no_url_and_no_form_is_an_internal_error(
    site: tuple[AsyncClient, list[tuple[str, str]]], data: st.DataObject
) -> None:
    """The response to any path, query and form is a page or an error that names the reason, never 500."""
    client, found = site
    method, path = data.draw(st.sampled_from(found))
    parts = [as_text(data.draw(TEXTS)) for _ in PARAMETER.findall(path)]
    path = PARAMETER.sub(lambda _: quote(parts.pop(), safe="/."), path)
    query = {name: as_text(value) for name, value in data.draw(FIELDS).items()}
    form = {name: as_text(value) for name, value in data.draw(FIELDS).items()} if method == "POST" else None
    file = {"file": ("codes.txt", b"A1\n")} if method == "POST" and data.draw(st.booleans()) else None
    url = f"{path}?{'&'.join(f'{name}={quote(value)}' for name, value in query.items())}"
    response = await client.request(method, url, data=form, files=file, headers=SAME_ORIGIN)
    assert response.status_code < 500, (method, url, response.text)


@pytest.mark.parametrize("name", ["%00", "a%00b", DIGITS, f"-{DIGITS}", "%F0%9F%98%80", "%ED%A0%80"])
async def test_a_name_that_cannot_exist_is_not_found(
    site: tuple[AsyncClient, list[tuple[str, str]]], name: str
) -> None:
    """A path with NUL, with 5,000 digits or with bytes that are not UTF-8 is not found, wherever the name is in it."""
    client, found = site
    for method, path in found:
        if PARAMETER.search(path) and method == "GET":
            response = await client.get(PARAMETER.sub(name, path), headers=SAME_ORIGIN)
            assert response.status_code == 404, path


async def test_a_query_with_nul_is_refused(site: tuple[AsyncClient, list[tuple[str, str]]]) -> None:
    """The status is 422, and the reason names the character. A form is refused with the name of its field."""
    client, _ = site
    for url in ("/api/sendouts?state=%00", "/?state=a%00", "/?%00=1"):
        response = await client.get(url)
        assert (response.status_code, "NUL" in response.text) == (422, True), url
    form = {"mode": "add", "column": "a\0"}
    response = await client.post(
        "/lists/spring-10/imports", data=form, files={"file": ("a", b"A")}, headers=SAME_ORIGIN
    )
    assert (response.status_code, "column: contains a NUL character" in response.text) == (422, True)


async def test_a_number_with_5000_digits_is_refused(site: tuple[AsyncClient, list[tuple[str, str]]]) -> None:
    """A form with such a column is refused with 422, and a body of such a length with 413."""
    client, _ = site
    form = {"mode": "add", "column": DIGITS}
    response = await client.post(
        "/lists/spring-10/imports", data=form, files={"file": ("a", b"A")}, headers=SAME_ORIGIN
    )
    assert response.status_code == 422
    headers = {"Content-Type": "application/json", "Content-Length": DIGITS}
    assert (await client.post("/api/commands", content=b"{}", headers=headers)).status_code == 413
