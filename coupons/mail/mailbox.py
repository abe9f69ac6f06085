"""Mailboxes of senders: a name and an address."""

import re
from dataclasses import dataclass

from coupons.addresses import AddressError, Flaw, parse_ascii_address
from coupons.attributes import CONTROL

_MAILBOX = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)" *|(?P<name>[^@,;:<>"\\]*))<(?P<address>[^<>]*)>')


@dataclass(frozen=True, slots=True)
class Mailbox:
    name: str
    address: str


def parse_mailbox(text: str) -> Mailbox:
    """The mailbox of `Shop <shop@example.org>`, `"Shop, Inc." <shop@example.org>` or `shop@example.org`.

    Raises AddressError.
    """
    found = _MAILBOX.fullmatch(text.strip(" "))
    if found is None:
        return Mailbox("", parse_ascii_address(text))
    name = (found["name"] or re.sub(r"\\(.)", r"\1", found["quoted"] or "")).strip()
    if CONTROL(name):
        raise AddressError(Flaw.SENDER_NAME, text)
    return Mailbox(name, parse_ascii_address(found["address"]))
