"""Ids of sendouts and imports can be abbreviated on the command line."""

from typing import Any

import pytest

from tests.acceptance.processes import FAILED, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes

FIRST, SECOND = "abcd1234-0000-4000-8000-000000000001", "abcd5678-0000-4000-8000-000000000002"
IMPORT = "ef012345-0000-4000-8000-000000000003"


@pytest.fixture(scope="module")
def jobs(open_shop: Shop) -> None:
    """Create two sendouts whose ids begin alike, and an import."""
    open_shop.has("hello", "few", addresses(2), {"ten": codes("TEN", 10)})
    for id_ in (FIRST, SECOND):
        open_shop.coupons("send", "--message", "hello", "--group", "few", "--id", id_, "--wait")
    open_shop.import_codes("ten", ["MORE-1"], "--id", IMPORT)


def test_the_first_characters_of_an_id_are_enough(open_shop: Shop, jobs: None) -> None:
    """Every command with an id accepts its first characters, with or without dashes, in upper or lower case."""
    assert open_shop.coupons("show", "abcd1", "--json").json["sendout"]["id"] == FIRST
    assert open_shop.coupons("show", "ABCD5678-00", "--json").json["sendout"]["id"] == SECOND
    assert open_shop.coupons("show", "ef01", "--json").json["id"] == IMPORT
    assert open_shop.coupons("uncertain", "abcd1", "--json").json == []
    for command in ("resume", "pause", "cancel", "retry"):
        printed = open_shop.coupons(command, "abcd1", code=0 if command == "retry" else FAILED)
        assert FIRST in printed.out + printed.err, command
    sent: Any = open_shop.coupons(
        "send", "--message", "hello", "--group", "few", "--after", "ef01", "--wait", "--json"
    ).json
    assert sent["sent"] == 2


def test_an_ambiguous_id_is_an_error_with_its_candidates(open_shop: Shop, jobs: None) -> None:
    """The error has up to five ids that begin so, each with a name. Nothing is changed."""
    error = open_shop.coupons("cancel", "abcd", code=FAILED).err
    assert error == (
        f"coupons: several ids begin with abcd, give more characters: {FIRST} (sendout hello to few), "
        f"{SECOND} (sendout hello to few)\n"
    )
    for number in range(6):
        open_shop.import_codes("ten", [f"LIKE-{number}"], "--id", f"dddd0000-0000-4000-8000-00000000000{number}")
    error = open_shop.coupons("show", "dddd", code=FAILED).err
    assert (error.count("(import into ten)"), error.endswith("and others\n")) == (5, True)


def test_an_unknown_or_too_short_id_is_an_error(open_shop: Shop, jobs: None) -> None:
    """An id of another kind is unknown: an import cannot be resumed. Fewer than four characters are wrong usage."""
    assert open_shop.coupons("show", "0bad", code=FAILED).err == (
        "coupons: there is no sendout or import whose id begins with 0bad\n"
    )
    assert "no sendout whose id begins with ef01" in open_shop.coupons("resume", "ef01", code=FAILED).err
    for wrong in ("abc", "hello", "", "a" * 33, "9" * 5_000):
        assert "at least its first 4 characters" in open_shop.coupons("show", wrong, code=WRONG_USAGE).err
