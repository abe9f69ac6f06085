"""A code exists once in the whole system: what recipients get if the same codes are imported into two lists."""

import csv
from unicodedata import normalize

from coupons.files.codes import fold
from tests.acceptance.processes import REJECTED_LINES
from tests.acceptance.system import Shop, addresses

BOTH = [*(f"SPR-A{number:02}" for number in range(5)), *(f"CAFÉ-{number}" for number in range(5))]
"""Codes that two lists get in different spellings."""
SPRING, SUMMER = [f"ONLY-A-{number}" for number in range(5)], [f"ONLY-B-{number}" for number in range(5)]


def respelled(code: str) -> str:
    """Return the code in lower case, and in NFD instead of NFC."""
    return normalize("NFD", code.lower())


def test_the_codes_of_two_lists_reach_one_person_each(open_shop: Shop) -> None:
    """Two lists get the same codes in other spellings, and each list has a sendout. No two mails print equal codes."""
    people = addresses(15)
    open_shop.together(
        open_shop.importing_group("people", people), ("list", "create", "spring-10"), ("list", "create", "summer")
    )
    assert open_shop.import_codes("spring-10", [*BOTH, *SPRING], "--json").json["added"] == 15
    mixed = [*map(respelled, BOTH), *SUMMER, respelled(BOTH[0]).upper()]
    imported = open_shop.import_codes("summer", mixed, "--json", code=REJECTED_LINES).json
    assert (imported["added"], imported["rejected"]) == (5, 11)
    rejected = csv.DictReader(
        open_shop.coupons("show", imported["id"], "--rejected").out.removeprefix("\ufeff").splitlines(), delimiter=";"
    )
    assert {row["reason"] for row in rejected} == {"already in list spring-10"}

    for name in ("spring-10", "summer"):
        text = open_shop.file(f"{name}.txt", f'Your code: {{{{ coupon("{name}") }}}}\n')
        open_shop.coupons("message", "save", name, "--subject", "Hello", "--text", text)
    open_shop.send("spring-10", "people")
    interrupted = open_shop.send("summer", "people", code=4)
    assert interrupted["reason"] == "list summer: 15 needed, 5 available, 10 missing"

    again = open_shop.import_codes("summer", mixed, "--json", code=REJECTED_LINES).json
    lines = csv.DictReader(
        open_shop.coupons("show", again["id"], "--rejected").out.removeprefix("\ufeff").splitlines(), delimiter=";"
    )
    reasons = {
        row["code"].replace("<U+0301>", "\u0301"): row["reason"] for row in lines
    }  # a report spells some letters
    assert {code: reason for code, reason in reasons.items() if code in mixed[:10]} == dict.fromkeys(
        mixed[:10], "already sent"
    )
    open_shop.import_codes("summer", [f"more-{number}" for number in range(10)])
    open_shop.resume(interrupted["id"])

    printed = [mail.text.removeprefix("Your code: ").strip() for mail in open_shop.mails()]
    assert len(printed) == 30
    assert len({fold(code) for code in printed}) == 30
    open_shop.verify()
