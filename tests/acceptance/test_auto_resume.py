"""Sendouts resume automatically once their lists have enough codes, or wait for an operator."""

from typing import Any

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import INTERRUPTED
from tests.acceptance.system import Shop, addresses, codes

CUSTOMERS = addresses(20)
SPRING, SUMMER = codes("SPRING", 60), codes("SUMMER", 60)


def test_the_import_of_the_missing_codes_resumes_a_sendout(shop: Shop) -> None:
    """Two sendouts wait until both lists have enough codes. The older one resumes first, and the other one later."""
    shop.has("both", "customers", CUSTOMERS, {"spring-10": SPRING[:5], "summer-20": SUMMER[:5]})
    with shop.worker(sweep_seconds=1), shop.worker(sweep_seconds=1):
        oldest, younger = (send(shop, "--auto-resume")["id"] for _ in range(2))
        by_hand = send(shop)["id"]
        shop.import_codes("spring-10", SPRING[5:20])
        assert [shop.state(each) for each in (oldest, younger, by_hand)] == ["interrupted"] * 3
        shop.import_codes("summer-20", SUMMER[5:20])
        shop.becomes("finished", oldest)
        assert_own_codes(shop.mails(), CUSTOMERS, SPRING[:20], SUMMER[:20])
        assert [shop.state(each) for each in (younger, by_hand)] == ["interrupted"] * 2
        assert "resumes automatically once its lists have enough codes" in shop.coupons("show", younger).out

        shop.together(shop.importing("spring-10", SPRING[20:]), shop.importing("summer-20", SUMMER[20:]))
        shop.becomes("finished", younger)
        assert_own_codes(shop.mails(younger), CUSTOMERS, SPRING[20:], SUMMER[20:])
        assert shop.mails(by_hand) == []
        is_only_shown_as_resumable(shop, by_hand)
        shop.resume(by_hand)
        assert len(shop.mails()) == 3 * len(CUSTOMERS)
    shop.verify()


def send(shop: Shop, *options: str) -> Any:
    arguments = ("send", "--message", "both", "--group", "customers", "--wait", "--json")
    return shop.coupons(*arguments, *options, code=INTERRUPTED).json


def is_only_shown_as_resumable(shop: Shop, sendout: str) -> None:
    hint = f"has enough codes now; resume it with `coupons resume {sendout}`"
    assert hint in shop.coupons("outbox", "--state", "interrupted").out
    assert hint in shop.coupons("show", sendout).out
    (found,) = shop.coupons("outbox", "--state", "interrupted", "--json").json
    assert (found["id"], found["resumable"], found["auto_resume"]) == (sendout, True, False)


def test_returned_codes_resume_a_sendout_too(shop: Shop) -> None:
    """A cancelled sendout returns its reserved codes without an import; a sweep then resumes the waiting sendout."""
    shop.has("both", "customers", CUSTOMERS, {"spring-10": SPRING[:20], "summer-20": SUMMER[:20]})
    with shop.worker(sweep_seconds=1):
        later = ("send", "--message", "both", "--group", "customers", "--start-at", "2100-01-01T00:00")
        first = shop.coupons(*later).out.strip()
        shop.becomes("sending", first)
        second = send(shop, "--auto-resume")["id"]
        shop.coupons("cancel", first)
        shop.becomes("finished", second)
        assert_own_codes(shop.mails(), CUSTOMERS, SPRING[:20], SUMMER[:20])
