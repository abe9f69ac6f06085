"""Arbitrary text as an address gives exactly one address that cannot end a header or command, or a one-line error."""

import re
from email.policy import SMTPUTF8
from email.utils import getaddresses

from hypothesis import given
from hypothesis import strategies as st

from coupons.addresses import AddressError, is_harmless, parse_address, parse_ascii_address
from coupons.mail import Envelope, parse_mailbox
from coupons.smtp.commands import Capabilities
from coupons.smtp.queue import Mail
from coupons.smtp.session import Session
from tests.fuzz.fuzzing import fuzzed

OUTSIDE_QUOTES = re.compile(r"[\x00-\x1f\x7f\s,<>]")
"""Characters that an address in the database may contain only in a quoted local part, and there only printable ones."""
QUOTED = re.compile(r'"(?:[^"\\]|\\["\\])*"(?=@)')
PIECES = st.sampled_from([
    "ada", "a", "jörg", "例", "é", "e\u0301", "ß", "İ", "\u0131", "ς", "\u200d", "\u200b", "\u202e", "\u00ad", "\ufeff",
    "@", "@", "@", ".", "..", "-", "_", "+", "xn--", "xn--a", "example", "example.org", "org", "1", "127.0.0.1",
    "[::1]", "eve7", " ", "\t", "\u00a0", "\r\n", "\n", "\0", "\x7f", "\x85", "\u2028", "\ud800", "<", ">", ",", ";",
    ":", '"', "\\", "(", ")", "\r\nBcc: eve@example.org", "RCPT TO:<eve@example.org>", "%", "=?utf-8?q?a?=", "a" * 64,
    "b." * 100, "\uff20", "\uff0e", "\u3002", "\u212a",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=9).map("".join) | st.text(max_size=20) | st.emails()


@fuzzed(3)
@given(TEXTS)
def test_an_accepted_address_is_one_address_everywhere(text: str) -> None:
    """An accepted address is a single address in the database, an envelope and a header. Parsing it again keeps it."""
    try:
        found = parse_address(text)
    except AddressError as error:
        assert "\n" not in str(error)
        assert "eve7" not in error.reason
        return
    address = found.address
    assert parse_address(address) == found
    assert parse_address(found.key).key == found.key
    assert not OUTSIDE_QUOTES.search(QUOTED.sub("", address))
    assert address.isprintable()
    assert 3 <= len(found.key) <= 254
    assert address.rpartition("@")[2].isascii()
    assert found.utf8 or is_harmless(address) or set(address) & set('"[')
    is_alone_in_an_envelope(address, utf8=found.utf8)
    is_alone_in_a_header(address)


def is_alone_in_an_envelope(address: str, *, utf8: bool) -> None:
    session = Session(Capabilities(utf8=True), pipelining=True)
    session.begin(Mail(Envelope("shop@example.org", address, lambda _: b"", utf8=utf8), lambda _: None))
    mail, rcpt, data, rest = session.output().split(b"\r\n")
    assert (mail.partition(b" SMTP")[0], data, rest) == (b"MAIL FROM:<shop@example.org>", b"DATA", b"")
    assert rcpt == f"RCPT TO:<{address}>".encode()


def is_alone_in_a_header(address: str) -> None:
    """Check that both parsers of the standard library read exactly this mailbox."""
    assert [parse_address(each).address for _, each in getaddresses([address])] == [address]
    read = SMTPUTF8.header_factory("To", address).addresses
    assert [parse_address(each.addr_spec).address for each in read] == [address]


@fuzzed()
@given(TEXTS)
def test_a_domain_is_encoded_with_idna(text: str) -> None:
    """The domain of an accepted address has the form that the standard library's IDNA codec gives it."""
    try:
        found = parse_address(text)
    except AddressError:
        return
    domain = found.address.rpartition("@")[2]
    assert domain.encode("idna").decode().lower() == domain.lower()
    assert all(1 <= len(label) <= 63 for label in domain.split("."))


@fuzzed()
@given(TEXTS, st.sampled_from(["{}", "Shop <{}>", '"Shop, Inc." <{}>', "{} <shop@example.org>"]))
def test_an_accepted_sender_is_one_mailbox(text: str, around: str) -> None:
    """The `From` header has a printable name and an address that every relay accepts."""
    try:
        mailbox = parse_mailbox(around.format(text))
    except AddressError as error:
        assert "\n" not in str(error)
        return
    assert mailbox.name.isprintable()
    assert parse_ascii_address(mailbox.address) == mailbox.address
