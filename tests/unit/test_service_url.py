"""URLs of services: a password with any character either works, or one line names the setting and the remedy."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from yarl import URL

from coupons.errors import UserError
from coupons.service_url import InvalidUrl, ServiceUrl, parse_broker_url, parse_database_url
from coupons.settings import SettingsError, load_settings
from coupons.smtp import SmtpAddress

RESERVED = "/#?@:%[]!$&'()*+,;= \\\"<>^`{|}~é"
WORK_AS_THEY_ARE = "@:%[]"
PARSERS: dict[str, Callable[[str], ServiceUrl]] = {
    "postgresql://{}@db.example:5432/coupons": parse_database_url,
    "amqp://{}@broker.example/": parse_broker_url,
}
RELAY = "smtps://{}@relay.example"
EVERY_URL = pytest.mark.parametrize("url", [*PARSERS, RELAY])
PASSWORDS = st.text(st.one_of(st.sampled_from("/#?@:%[]19aF"), st.characters(codec="utf-8")), min_size=1, max_size=12)


def password_in(url: str, credentials: str) -> str | None:
    """Return the password that the URL with these credentials has. Raises InvalidUrl."""
    text = url.format(credentials)
    if url == RELAY:
        (address,) = SmtpAddress.parse_all(text)
        assert address.host == "relay.example"
        return address.password
    parsed = PARSERS[url](text)
    assert parsed.host_and_port[0] in url
    assert PARSERS[url](str(parsed)) == parsed
    return parsed.password


@EVERY_URL
@pytest.mark.parametrize("character", RESERVED)
def test_an_encoded_character_works(url: str, character: str) -> None:
    """A percent-encoded password may contain every character."""
    assert password_in(url, f"user:se{quote(character, safe='')}cret") == f"se{character}cret"


@EVERY_URL
@pytest.mark.parametrize("character", WORK_AS_THEY_ARE)
@pytest.mark.parametrize("user", ["user", "me@shop.example"])
def test_some_reserved_characters_work_as_they_are(url: str, character: str, user: str) -> None:
    """The password begins at the first colon and ends at the last `@` before the path."""
    assert password_in(url, f"{user}:se{character}cret") == f"se{character}cret"


@EVERY_URL
@pytest.mark.parametrize("character", "/?#")
@pytest.mark.parametrize("user", ["user", "me@shop.example"])
@pytest.mark.parametrize("begin", ["se", "12", "1:", "s@e", ""])
def test_a_character_that_ends_the_password_is_an_error(url: str, character: str, user: str, begin: str) -> None:
    """The error has the setting and the remedy, and no part of the URL."""
    with pytest.raises(UserError) as caught:
        password_in(url, f"{user}:{begin}{character}cret")
    assert re.match("COUPONS_(DATABASE|BROKER|SMTP)_URL: ", str(caught.value))
    assert "percent-encode" in str(caught.value)
    assert "cret" not in str(caught.value)
    assert "shop.example" not in str(caught.value)
    assert caught.value.__context__ is None


@EVERY_URL
@given(password=PASSWORDS)
def test_a_password_works_or_is_an_error_without_any_part_of_it(url: str, password: str) -> None:
    """A raw password is read unchanged, or the error is one line that does not depend on the password."""
    assume(not re.search(r"^\s|\s$", password))
    try:
        found = password_in(url, f"user:{password}")
    except InvalidUrl as error:
        assert str(error) == str(_error(url))
    else:
        assert found == unquote(password)
    assert password_in(url, f"user:{quote(password, safe='')}") == password


def _error(url: str) -> InvalidUrl:
    with pytest.raises(InvalidUrl) as caught:
        password_in(url, "/")
    return caught.value


@given(password=PASSWORDS)
def test_the_broker_library_reads_the_same_password(password: str) -> None:
    """The URL that is handed to the library has the password and the host that we have read."""
    parsed = parse_broker_url(f"amqp://user:{quote(password, safe='')}@broker.example:5673/shop")
    assert URL(str(parsed)).password == password
    assert (URL(str(parsed)).host, URL(str(parsed)).port) == ("broker.example", 5673)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///coupons?host=/var/run/postgresql",
        "postgresql://%2Fvar%2Frun/coupons",
        "postgres://user@one.example:5432,two.example:5433/coupons?target_session_attrs=primary",
        "postgresql://[::1]:5432/coupons",
        "postgresql://user@localhost/coupons?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    ],
)
def test_other_valid_urls_are_unchanged(url: str) -> None:
    """Sockets, several hosts and options remain as they are."""
    assert str(parse_database_url(url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "mysql://localhost/",
        "postgresql://localhost:99999/",
        "postgresql://localhost/a#b",
        "postgresql://a:b/",
    ],
)
def test_other_invalid_urls_are_errors(url: str) -> None:
    """A URL of another kind, or with an invalid port, is rejected."""
    with pytest.raises(InvalidUrl):
        parse_database_url(url)


@pytest.mark.parametrize("name", ["DATABASE", "BROKER"])
def test_a_wrong_url_is_reported_when_the_settings_are_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process ends at its start with one line, instead of retrying with a wrong URL."""
    monkeypatch.chdir(tmp_path)
    scheme = {"DATABASE": "postgresql", "BROKER": "amqp"}[name]
    monkeypatch.setenv(f"COUPONS_{name}_URL", f"{scheme}://user:se/cret@host/")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"COUPONS_{name}_URL: the ")
    assert "se/" not in str(caught.value)
    assert "cret" not in str(caught.value)


def test_the_settings_have_the_encoded_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that would read a raw password in another way get it encoded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUPONS_DATABASE_URL", "postgresql://user:a@b:c%@host/coupons")
    assert load_settings().database_url.get_secret_value() == "postgresql://user:a%40b%3Ac%25@host/coupons"
