import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.addresses import MAX_ADDRESS, AddressError, is_harmless, parse_address

UNUSUAL_CHARACTERS = st.sampled_from(
    "ab1.-@@"
    " \t\r\n\x00\x85\u2028\u00a0,;:<>\"'()[]\\üßÜ\u3002\uff20\u200b\u202e\ud800\ufb00\u212a\u0130\u03a3\u0308\ue000"
)


def test_a_plain_address_is_unchanged() -> None:
    """The parsed address is unchanged; its key is in lower case."""
    address = parse_address("Ada.O'Neil+shop@Mail.Example.org")
    assert address.address == "Ada.O'Neil+shop@Mail.Example.org"
    assert address.key == "ada.o'neil+shop@mail.example.org"


@pytest.mark.parametrize(
    "spelling",
    [
        "ada@xn--bcher-kva.example",
        "ADA@XN--BCHER-KVA.example",
        "  ada@bücher.example\u00a0",
        "\tAda@Bücher.Example ",
        "ada@bu\u0308cher.example",
        "ada@\uff22\u00dccher\u3002example",  # typed on a Japanese keyboard
    ],
)
def test_spellings_of_one_mailbox_share_a_key(spelling: str) -> None:
    """Addresses that differ in case, surrounding spaces, decomposed letters or the form of the domain have one key."""
    assert parse_address(spelling).key == "ada@xn--bcher-kva.example"


def test_an_international_domain_is_mailed_in_ascii() -> None:
    """The domain is converted to ASCII, so the envelope and the To header need no SMTPUTF8."""
    assert parse_address("ada@bücher.example").address == "ada@xn--bcher-kva.example"


def test_non_ascii_letters_before_the_at_are_mailed_unchanged() -> None:
    """A non-ASCII local part stays in UTF-8, its only form (RFC 6531), and its address reports a need of SMTPUTF8."""
    address = parse_address(" Ju\u0308rgen.Groß+1@Bücher.example")
    assert address.address == "Jürgen.Groß+1@xn--bcher-kva.example"
    assert address.utf8
    assert not parse_address("juergen@bücher.example").utf8


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("JÜRGEN@example.org", "ju\u0308rgen@Example.org", True),
        ("ΝΊΚΟΣ@example.org", "νίκος@example.org", True),
        ("用户@example.org", "用户@EXAMPLE.org", True),
        ("straße@example.org", "strasse@example.org", False),
        ("\u212aada@example.org", "kada@example.org", True),  # NFC makes the Kelvin sign a K
        ("jürgen@example.org", "jurgen@example.org", False),
    ],
)
def test_a_non_ascii_key_ignores_only_case(one: str, other: str, same: bool) -> None:
    """Two spellings of one mailbox have one key; two mailboxes never have the same key."""
    assert (parse_address(one).key == parse_address(other).key) == same


@pytest.mark.parametrize(
    "address",
    ["a@b\r\nBcc: eve@example.org", "a@b\n", "a@b,c@d", "a@b>", "<a@b", "a b@c", "a@b@c", "a@b\0", "ä@b.org", "a", ""],
)
def test_an_address_that_could_end_a_header_is_not_harmless(address: str) -> None:
    """The quick check before a mail is written rejects all text that could start a header or a command."""
    assert not is_harmless(address)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \t\u00a0", "is empty"),
        ("ada", 'has no "@"'),
        ("ada\n@example.org", "has control characters"),
        ("ada@example.org\r\nBcc: eve@example.org", "has control characters"),
        ("ada@example.org\n", "has control characters"),
        ("ada@bücher.example\u2028", "has control characters"),
        ("ada@example.org, eve@example.org", "is not one plain address like name@example.org"),
        ("Ada <ada@example.org>", "is not one plain address like name@example.org"),
        ('"ada"@example.org', "is not one plain address like name@example.org"),
        ("ada..l@example.org", "is not one plain address like name@example.org"),
        ("ada@eve@example.org", "is not one plain address like name@example.org"),
        ("@example.org", "is not one plain address like name@example.org"),
        ("a" * 65 + "@example.org", 'has more than 64 characters before the "@"'),
        ("ada@" + "a." * 130 + "org", "is longer than 254 characters"),
        ("ada@localhost", "has a domain without a dot"),
        ("ada@" + "a" * 64 + ".org", "has an invalid domain"),
        ("ada@" + "ü" * 64 + ".org", "has an invalid domain"),
        ("ada@192.0.2.1", "has an invalid domain"),
        ("ada@[192.0.2.1]", "has an invalid domain"),
        ("ada@-a.org", "has an invalid domain"),
        ("ada@example.org.", "has an invalid domain"),
        ("ada@a_b.org", "has an invalid domain"),
        ("adä lovelace@example.org", "is not one plain address like name@example.org"),
        ("ad\u00e4\u200b@example.org", "is not one plain address like name@example.org"),
        ("\u202eadä@example.org", "is not one plain address like name@example.org"),
        ("ad\u3000ä@example.org", "is not one plain address like name@example.org"),
        ("adä\ud800@example.org", "is not one plain address like name@example.org"),
        ("adä,eve@example.org", "is not one plain address like name@example.org"),
        ('"adä"@example.org', "is not one plain address like name@example.org"),
        ("adä@eve@example.org", "is not one plain address like name@example.org"),
        ("adä..l@example.org", "is not one plain address like name@example.org"),
        ("adä\x85@example.org", "has control characters"),
        ("ä" * 33 + "@example.org", 'has more than 64 characters before the "@"'),
        ("ä" * 32 + "@" + "a." * 95 + "org", "is longer than 254 characters"),
        ("ä@localhost", "has a domain without a dot"),
        ("ä@192.0.2.1", "has an invalid domain"),
        ("ada@straße.example", 'has an ambiguous domain (IDNA 2003 or 2008): write it as "xn--…"'),
    ],
)
def test_an_invalid_address_has_a_helpful_reason(text: str, reason: str) -> None:
    """The error of an invalid address contains the reason that helps to fix it."""
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert caught.value.reason == reason


def test_a_long_invalid_text_is_truncated() -> None:
    """The error for a megabyte in an address column is one readable line."""
    with pytest.raises(AddressError) as caught:
        parse_address("é" * 1_000_000)
    assert len(str(caught.value)) < 200


@given(
    st.text(UNUSUAL_CHARACTERS, max_size=40)
    | st.text(max_size=40)
    | st.builds("{}@{}.org".format, st.text(max_size=70), st.text(max_size=5))
)
def test_anything_is_one_clean_address_or_a_one_line_error(text: str) -> None:
    """No text crashes the parser, adds a second address or control character, or breaks the error line."""
    try:
        address = parse_address(text)
    except AddressError as error:
        assert str(error).isprintable()
    else:
        assert address.utf8 or address.address.isascii()
        assert address.utf8 or is_harmless(address.address)
        assert address.address.rpartition("@")[2].isascii()
        assert address.address.isprintable()
        assert address.address.count("@") == 1
        assert not set(address.address) & set(' ,;:<>"()[]\\')
        assert not any(character.isspace() for character in address.address)
        assert len(address.address.encode()) <= MAX_ADDRESS
        assert 3 <= len(address.key) <= MAX_ADDRESS
        assert parse_address(address.address) == address
        assert parse_address(address.key).key == address.key


@given(st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20})?@([a-z0-9]{1,20}\.){1,3}[a-z]{2,10}", fullmatch=True))
def test_ordinary_addresses_pass(text: str) -> None:
    """The strict rules accept all ordinary addresses."""
    assert parse_address(text).address == text
