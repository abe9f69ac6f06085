import os

import pytest

from coupons.errors import UserError
from coupons.service_url import InvalidUrl
from coupons.smtp import Relays, SmtpAddress, SmtpAddressError, Tls
from coupons.smtp.relays import shares


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("smtp://127.0.0.1", SmtpAddress("127.0.0.1", 25, Tls.NONE)),
        ("smtp://localhost:1025/", SmtpAddress("localhost", 1025, Tls.NONE)),
        ("smtp://[::1]:25", SmtpAddress("::1", 25, Tls.NONE)),
        ("smtp://relay.example", SmtpAddress("relay.example", 587, Tls.STARTTLS)),
        ("smtp://mailpit:1025?tls=none", SmtpAddress("mailpit", 1025, Tls.NONE)),
        ("smtp://u:p@127.0.0.2:25", SmtpAddress("127.0.0.2", 25, Tls.NONE, "u", "p")),
        ("smtps://u%3A:p%2F%40%25@relay.example", SmtpAddress("relay.example", 465, Tls.IMPLICIT, "u:", "p/@%")),
        (
            "smtps://relay.example?ca=/etc/ca.pem",
            SmtpAddress("relay.example", 465, Tls.IMPLICIT, ca_file="/etc/ca.pem"),
        ),
        ("smtp://127.0.0.1?weight=3", SmtpAddress("127.0.0.1", 25, Tls.NONE, weight=3)),
    ],
)
def test_a_relay_url_determines_host_port_and_tls(url: str, address: SmtpAddress) -> None:
    """TLS is required unless the host is loopback or the URL disables TLS."""
    assert SmtpAddress.parse(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must look like"),
        ("relay.example:25", "must look like"),
        ("https://u:sEcret@relay.example", "must look like"),
        ("smtp://u:sE/cret@relay.example", "must look like"),
        ("smtp://u:sE#cret@relay.example", "must look like"),
        ("smtp://u:sE?cret@relay.example", "must look like"),
        ("smtp://u:sEcret@relay.example:99999", "must look like"),
        ("smtp://u:sEcret@relay.example?tls", "must look like"),
        ("smtp://u:sEcret@relay.example?tsl=none", "unknown options: tsl"),
        ("smtp://u:sEcret@relay.example?tls=maybe", "allows tls=starttls or tls=none"),
        ("smtps://u:sEcret@relay.example?tls=none", "no tls option with smtps"),
        ("smtp://u:sEcret@relay.example?weight=0", "whole number from 1 to 999"),
        ("smtp://u:sEcret@relay.example?weight=1e2", "whole number from 1 to 999"),
        ("smtp://u:sEcret@relay.example?tls=none", "the password for relay.example would be sent in clear"),
    ],
)
def test_the_error_for_a_wrong_url_does_not_show_the_password(url: str, reason: str) -> None:
    """Neither the message nor the exception's context contains any part of the password."""
    with pytest.raises(UserError, match=reason) as caught:
        SmtpAddress.parse(url)
    assert "cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_the_repr_of_an_address_does_not_show_the_password() -> None:
    """An address that is printed by accident does not reveal the password."""
    assert "secret" not in repr(SmtpAddress.parse("smtps://u:secret@relay.example"))


def test_a_missing_ca_file_is_an_error_at_start() -> None:
    """A wrong `ca` option is reported at the start instead of once per mail."""
    with pytest.raises(SmtpAddressError, match=f"{os.sep}nowhere.pem cannot be read"):
        Relays(SmtpAddress.parse_all("smtps://relay.example?ca=/nowhere.pem"))


def test_an_invalid_ehlo_hostname_is_an_error_at_start() -> None:
    """A wrong hostname is reported at the start instead of once per mail."""
    with pytest.raises(SmtpAddressError, match="EHLO"):
        Relays(SmtpAddress.parse_all("smtp://127.0.0.1"), local_hostname="my host")


@pytest.mark.parametrize("between", [" ", ",", ", ", "\n", " ,\n "])
def test_one_setting_holds_several_relays(between: str) -> None:
    """Relay URLs may be separated by spaces, line breaks or commas."""
    urls = ["smtp://10.0.0.1?tls=none&weight=2", "smtps://relay.example"]
    addresses = SmtpAddress.parse_all(f"{between.join(urls)}\n")
    assert [address.name for address in addresses] == ["10.0.0.1:25", "relay.example:465"]
    assert [address.weight for address in addresses] == [2, 1]


def test_an_empty_setting_is_an_error() -> None:
    """An empty setting is rejected, unlike a missing one."""
    with pytest.raises(InvalidUrl, match="must look like"):
        SmtpAddress.parse_all(" ")


def test_the_name_of_an_ipv6_relay_has_brackets() -> None:
    """The brackets are the same as in URLs."""
    assert SmtpAddress.parse("smtp://[::1]:25").name == "[::1]:25"


@pytest.mark.parametrize(
    ("weights", "connections", "expected"),
    [
        ([1], 10, [10]),
        ([1, 1, 1], 10, [3, 4, 3]),
        ([2, 1], 10, [7, 3]),
        ([1, 1, 1], 2, [1, 1, 1]),
        ([99, 1], 5, [5, 1]),
    ],
)
def test_connections_are_shared_by_weight(weights: list[int], connections: int, expected: list[int]) -> None:
    """Each relay gets connections by its weight, and at least one."""
    addresses = [SmtpAddress("127.0.0.1", 25, Tls.NONE, weight=weight) for weight in weights]
    assert shares(addresses, connections) == expected
