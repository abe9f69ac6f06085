"""An operator can pause, resume and cancel a sendout while it runs."""

from typing import Any
from uuid import UUID

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, INTERRUPTED
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

CUSTOMERS = addresses(2_500)
SPRING = codes("SPRING", 2_500)
LEISURELY: dict[str, Any] = {"max_in_flight": 1, "concurrent_batches": 1, "batch_size": 100}
"""One mail at a time, some 600 per second, so that a test has four seconds to intervene."""


def is_idle(shop: Shop, sendout: UUID) -> bool:
    return not shop.rows("SELECT FROM delivery_batch WHERE sendout_id = $1 AND lease_token IS NOT NULL", sendout)


def is_over(shop: Shop, sendout: UUID | str) -> bool:
    return bool(shop.rows("SELECT FROM sendout WHERE id = $1::text::uuid AND finished_at IS NOT NULL", str(sendout)))


def test_a_paused_sendout_sends_nothing_until_it_is_resumed(shop: Shop) -> None:
    """Mails in flight get their outcomes, and the others wait with their codes. Each recipient gets one mail."""
    shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
    with shop.worker(**LEISURELY):
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.mails_come(20)
        assert "paused" in shop.coupons("pause", sendout).out
        eventually(lambda: is_idle(shop, sendout), "the batches to be released")
        shown = shop.coupons("outbox", "--state", "paused", "--json").json[0]
        assert (shown["state"], shown["reason"]) == ("paused", "paused by an operator")
        assert 20 <= len(shop.mails()) == shown["sent"] < len(CUSTOMERS)
        assert (shown["uncertain"], shown["remaining"]) == (0, len(CUSTOMERS) - shown["sent"])
        assert shop.get_list("spring-10").available == 0
        shop.verify()
        assert "is paused" in shop.coupons("pause", sendout, code=FAILED).err
    with shop.worker():
        assert shop.resume(sendout)["state"] == "finished"
    assert_own_codes(shop.mails(), CUSTOMERS, SPRING)


def test_a_cancelled_sendout_returns_the_codes_of_unsent_mails(shop: Shop) -> None:
    """Mailed recipients keep their codes, all other codes are available again, and the sendout cannot be resumed."""
    shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
    with shop.worker(**LEISURELY):
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.mails_come(20)
        shop.coupons("cancel", sendout)
        eventually(lambda: is_over(shop, sendout), "the last batch to be closed")
        (shown,) = shop.coupons("outbox", "--state", "cancelled", "--json").json
        mails = shop.mails()
        assert 20 <= len(mails) == shown["sent"] < len(CUSTOMERS)
        assert (shown["cancelled"], shown["remaining"]) == (len(CUSTOMERS) - len(mails), 0)
        spring = shop.get_list("spring-10")
        assert (spring.available, spring.sent) == (len(CUSTOMERS) - len(mails), len(mails))
        assert "cancelled" in shop.coupons("resume", sendout, code=FAILED).err
        again = shop.send("spring-voucher", "customers", code=INTERRUPTED)
        assert again["lists"][0]["missing"] == len(mails)
        assert_own_codes(shop.mails(sendout), (mail.recipient for mail in mails), SPRING)


def test_an_interrupted_sendout_can_be_cancelled(shop: Shop) -> None:
    """An interrupted sendout has reserved no code and sent no mail. Until then, an archived list serves it."""
    with shop.worker(sweep_seconds=0.5):
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:5]})
        sendout = shop.send("spring-voucher", "customers", code=INTERRUPTED)
        assert f"still serves sendout {sendout['id']}" in shop.coupons("list", "archive", "spring-10").out
        shop.coupons("list", "restore", "spring-10")
        shop.coupons("cancel", sendout["id"])
        assert shop.get_list("spring-10").available == 5
        eventually(lambda: is_over(shop, sendout["id"]), "its batches to be closed")
        assert "still serves" not in shop.coupons("list", "archive", "spring-10").out
        assert shop.mails() == []
