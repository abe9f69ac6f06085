import re
from email.utils import getaddresses
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.addresses import MAX_ADDRESS, AddressError, Flaw, is_harmless, parse_address, parse_ascii_address

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
    ("text", "flaw"),
    [
        ("", Flaw.EMPTY),
        (" \t\u00a0", Flaw.EMPTY),
        ("ada", Flaw.NO_AT),
        ("ada\n@example.org", Flaw.CONTROL),
        ("ada@example.org\r\nBcc: eve@example.org", Flaw.CONTROL),
        ("ada@example.org\n", Flaw.CONTROL),
        ("ada@bücher.example\u2028", Flaw.CONTROL),
        ("adä\x85@example.org", Flaw.CONTROL),
        ("ada@example.org, eve@example.org", Flaw.SEVERAL),
        ("ada@example.org;eve@example.org", Flaw.SEVERAL),
        ("ada@example.org eve@example.org", Flaw.SEVERAL),
        ("ada@example.org / eve@example.org", Flaw.SEVERAL),
        ("ada@eve@example.org", Flaw.TWO_ATS),
        ("adä@eve@example.org", Flaw.TWO_ATS),
        ("Ada <ada@example.org>", Flaw.BRACKETS),
        ("ada..l@example.org", Flaw.DOTS),
        ("adä..l@example.org", Flaw.DOTS),
        (".ada@example.org", Flaw.DOTS),
        ("ada.@example.org", Flaw.DOTS),
        ("@example.org", Flaw.NO_LOCAL_PART),
        ("ada@", Flaw.NO_DOMAIN),
        ("a" * 65 + "@example.org", Flaw.LONG_LOCAL_PART),
        ("ä" * 33 + "@example.org", Flaw.LONG_LOCAL_PART),
        ('"' + "a b" * 21 + '"@example.org', Flaw.LONG_LOCAL_PART),
        ("ada@" + "a." * 130 + "org", Flaw.LONG),
        ("ä" * 32 + "@" + "a." * 95 + "org", Flaw.LONG),
        ("ada@localhost", Flaw.NO_DOT),
        ("ä@localhost", Flaw.NO_DOT),
        ("ada@" + "a" * 64 + ".org", Flaw.LONG_LABEL),
        ("ada@" + "ü" * 64 + ".org", Flaw.LONG_LABEL),
        ("ada@" + "ü" * 60 + ".org", Flaw.IDN),
        ("ada@a\u0627ü.org", Flaw.IDN),
        ("ada@192.0.2.1", Flaw.NUMBER),
        ("ä@192.0.2.1", Flaw.NUMBER),
        ("ada@[192.0.2.256]", Flaw.LITERAL),
        ("ada@[2001:db8::1]", Flaw.LITERAL),
        ("ada@[IPv6:fe80::1%eth0]", Flaw.LITERAL),
        ("ada@[192.0.2.1", Flaw.LITERAL),
        ("ada@-a.org", Flaw.HYPHEN),
        ("ada@a-.org", Flaw.HYPHEN),
        ("ada@example.org.", Flaw.TRAILING_DOT),
        ("ada@bücher.example.", Flaw.TRAILING_DOT),
        ("ada@example..org", Flaw.DOMAIN_DOTS),
        ("ada@bücher..example", Flaw.DOMAIN_DOTS),
        ("ada@.example.org", Flaw.DOMAIN_DOTS),
        ("ada@a_b.org", Flaw.DOMAIN_CHARACTER),
        ("ada@example.org,", Flaw.DOMAIN_CHARACTER),
        ("ada lovelace@example.org", Flaw.BLANK),
        ("adä lovelace@example.org", Flaw.BLANK),
        ("ada@ example.org", Flaw.BLANK),
        ("ad\u3000ä@example.org", Flaw.BLANK),
        ("ada@exam\u3000ple.org", Flaw.BLANK),
        ("ad\u00e4\u200b@example.org", Flaw.INVISIBLE),
        ("\u202eadä@example.org", Flaw.INVISIBLE),
        ("adä\ud800@example.org", Flaw.INVISIBLE),
        ("ada@\ud800.org", Flaw.INVISIBLE),
        ("adä,eve@example.org", Flaw.CHARACTER),
        ("ada(work)@example.org", Flaw.CHARACTER),
        ("mailto:ada@example.org", Flaw.CHARACTER),
        ('"ada@example.org', Flaw.QUOTES),
        ('"a"da@example.org', Flaw.QUOTES),
        ('"ada\\"@example.org', Flaw.QUOTES),
        ("ada@straße.example", Flaw.AMBIGUOUS),
        ("\u2022ada@example.org", Flaw.SIGN),
        ("\u2013bob@example.org", Flaw.SIGN),
        ("o\u2019hara@example.org", Flaw.SIGN),
        ("\uff41da@example.org", Flaw.SIGN),
        ("\u201cada@example.org", Flaw.SIGN),
        ("\u201cada@example.org\u201d", Flaw.SIGN),
        ("ada@example.org\u201d", Flaw.DOMAIN_CHARACTER),
        ("ada@exam\u2013ple.org", Flaw.DOMAIN_CHARACTER),
        ("ada@\u2615.example", Flaw.DOMAIN_CHARACTER),
    ],
)
def test_an_invalid_address_has_the_reason_that_helps_to_fix_it(text: str, flaw: Flaw) -> None:
    """The error of an invalid address names what is wrong with it."""
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert caught.value.flaw is flaw
    assert caught.value.reason == flaw.words


def test_each_flaw_has_words_of_its_own() -> None:
    """A user can tell two flaws apart by their words."""
    assert len({flaw.words for flaw in Flaw}) == len(Flaw)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ('"Ada Lovelace"@example.org', '"Ada Lovelace"@example.org'),
        ('"ada@home"@example.org', '"ada@home"@example.org'),
        ('"a,b;c<d>"@example.org', '"a,b;c<d>"@example.org'),
        ('"a\\"b\\\\"@example.org', '"a\\"b\\\\"@example.org'),
        ('"jörg müller"@example.org', '"jörg müller"@example.org'),
        ('"ada..l"@example.org', '"ada..l"@example.org'),
        ('""@example.org', '""@example.org'),
        ('" "@example.org', '" "@example.org'),
        ('"ada"@example.org', "ada@example.org"),
        ('"a\\da"@example.org', "ada@example.org"),
        ('"a\\ b"@example.org', '"a b"@example.org'),
        ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
        ("ada@[192.000.002.001]", "ada@[192.0.2.1]"),
        ("ada@[ipv6:2001:DB8:0::1]", "ada@[IPv6:2001:db8::1]"),
        ("ada@[IPv6:::ffff:192.0.2.1]", f"ada@[IPv6:{IPv6Address('::ffff:192.0.2.1')}]"),
    ],
)
def test_quoted_local_parts_and_ip_addresses_are_accepted_in_one_form(text: str, address: str) -> None:
    """An address with quotes or an IP address is mailed with the fewest quotes, in the canonical form of the IP."""
    assert parse_address(text).address == address
    assert parse_address(address) == parse_address(text)


@pytest.mark.parametrize("text", ["jörg@example.org", "ada@[192.0.2.1]"])
def test_a_sender_needs_ascii_and_a_domain(text: str) -> None:
    """An address that only some relays accept, or that cannot end a Message-ID, is refused for a sender."""
    with pytest.raises(AddressError, match="only a recipient may have"):
        parse_ascii_address(text)


ATOMS = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,12}", fullmatch=True)
QUOTED_STRINGS = st.lists(
    st.sampled_from([*map(chr, (*range(32, 34), *range(35, 92), *range(93, 127)))])
    | st.integers(32, 126).map(lambda number: f"\\{chr(number)}"),
    max_size=30,
).map(lambda pieces: f'"{"".join(pieces)}"')
LABELS = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
DOMAINS = st.builds(
    lambda labels, top: ".".join([*labels, top]),
    st.lists(LABELS, min_size=1, max_size=5),
    st.from_regex(r"[A-Za-z](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True),
)
LITERALS = st.ip_addresses(v=4).map("[{}]".format) | st.ip_addresses(v=6).map("[IPv6:{}]".format)
MAILBOXES = st.builds(
    "{}@{}".format, st.lists(ATOMS, min_size=1, max_size=4).map(".".join) | QUOTED_STRINGS, DOMAINS | LITERALS
)


@given(MAILBOXES)
def test_each_mailbox_of_rfc_5321_is_accepted(text: str) -> None:
    """A mailbox by the grammar of RFC 5321 is accepted, and parsing the result again does not change it."""
    parsed = parse_address(text)
    assert parse_address(parsed.address) == parsed
    assert parse_address(parsed.key).key == parsed.key
    is_plain = '"' not in parsed.address and "[" not in parsed.address  # some Pythons parse only these
    assert getaddresses([parsed.address]) == [("", parsed.address)] or not is_plain
    assert not re.search(r"[\r\n]", parsed.address)


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
        assert address.utf8 or is_harmless(address.address) or set(address.address) & set('"[')
        assert address.address.rpartition("@")[2].isascii()
        assert address.address.isprintable()
        local_part, _, domain = address.address.rpartition("@")
        if local_part[:1] != '"':
            assert not set(local_part) & set(' ,;:<>"()[]\\@')
            assert not any(character.isspace() for character in local_part)
        assert domain[:1] == "[" or not set(domain) & set(' ,;:<>"()[]\\')
        assert len(address.address.encode()) <= MAX_ADDRESS
        assert 3 <= len(address.key) <= MAX_ADDRESS
        assert parse_address(address.address) == address
        assert parse_address(address.key).key == address.key


@given(st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20})?@([a-z0-9]{1,20}\.){1,3}[a-z]{2,10}", fullmatch=True))
def test_ordinary_addresses_pass(text: str) -> None:
    """The strict rules accept all ordinary addresses."""
    assert parse_address(text).address == text
