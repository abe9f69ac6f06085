"""One mail address, checked strictly: what passes here can stand in an envelope and in a header as it is."""

import re
import unicodedata
from dataclasses import dataclass

from coupons.errors import Told

MAX_ADDRESS = 254  # characters; RFC 5321 4.5.3.1.3 allows a path of 256 with its angle brackets
MAX_LOCAL_PART = 64  # characters; RFC 5321 4.5.3.1.1
MAX_SHOWN = 80  # characters of a refused text that its error shows

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?=[A-Za-z]){_LABEL}")  # a last label of digits would be an IP address
_ADDRESS = re.compile(rf"(?=.{{1,{MAX_LOCAL_PART}}}@){_LOCAL_PART.pattern}@{_DOMAIN.pattern}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BLANKS = " \t\u00a0"  # what spreadsheets leave around a cell; a line break is never cleaned away
# IDNA 2003, which the standard library speaks, maps these to other letters or to nothing, IDNA 2008 keeps them:
# "straße.de" and "strasse.de" may belong to two people, so the writer has to say which one is meant.
_AMBIGUOUS = re.compile("[\u00df\u03c2\u200c\u200d]")


class AddressError(Told, ValueError):
    """The text is not one mail address. `reason` never quotes the text, so that it may be logged; the message does."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{_shown(text)} {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address.

    `address` is what is mailed: blanks around it removed, the domain in ASCII (RFC 5890 A-labels).
    `key` is equal for two spellings of one mailbox: letter case is ignored in the local part too, because no
    provider tells "Ada@" from "ada@", and a person who stands in a list twice must not get two codes.
    """

    address: str
    key: str


def parse_address(text: str) -> Address:
    """The one address (RFC 5321 Mailbox, without quoted local parts and address literals) that `text` holds.

    Raises AddressError for everything else: display names, lists, control characters, dotless domains.
    """
    address = text.strip(_BLANKS)
    if not address.isascii():
        address = _to_ascii(address, text)
    if len(address) > MAX_ADDRESS or _ADDRESS.fullmatch(address) is None:
        raise AddressError(_reason(address), text)
    return Address(address, address.lower())


def _to_ascii(address: str, text: str) -> str:
    local_part, at, domain = unicodedata.normalize("NFC", address[: MAX_ADDRESS + 1]).rpartition("@")
    if len(address) > MAX_ADDRESS or not at or _CONTROL.search(address):
        raise AddressError(_reason(address), text)
    if not local_part.isascii():
        raise AddressError('has letters before the "@" that need SMTPUTF8, which is not supported', text)
    if _AMBIGUOUS.search(domain):
        raise AddressError('has a domain that two standards read differently: write it as "xn--…"', text)
    try:
        return f"{local_part}@{domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        raise AddressError("has a domain that is not valid", text) from None


def _reason(address: str) -> str:
    """Why `address` was refused: the reason that helps most comes first."""
    local_part, at, domain = address.rpartition("@")
    checks = (
        (not address, "is empty"),
        (_CONTROL.search(address), "has control characters"),
        (len(address) > MAX_ADDRESS, f"is longer than {MAX_ADDRESS} characters"),
        (not at, 'has no "@"'),
        (not _LOCAL_PART.fullmatch(local_part), "is not one plain address like name@example.org"),
        (len(local_part) > MAX_LOCAL_PART, f'has more than {MAX_LOCAL_PART} characters before the "@"'),
        ("." not in domain, "has a domain without a dot"),
    )
    return next((reason for failed, reason in checks if failed), "has a domain that is not valid")


def _shown(text: str) -> str:
    """`text` in quotes on one line: control and format characters escaped, cut to MAX_SHOWN characters."""
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")
