"""A relay that refuses all mails: the operator sees why, fixes it, and each recipient gets a mail with their code."""

from pathlib import Path

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.system import Shop, addresses, codes
from tests.smtp_server import process

REASON = "the relay refuses the message: 554"


def test_a_relay_that_refuses_every_message_costs_no_recipient_their_mail(shop: Shop, tmp_path: Path) -> None:
    """The sendout pauses, and `outbox`, `show` and the log have the reason. After the fix, all mails arrive."""
    shop.has("spring-voucher", "customers", addresses(200), {"spring-10": codes("SPRING", 200)})
    unverified = {"DOT": "554 Message rejected: Email address is not verified.\r\n"}
    with (
        process(tmp_path / "none.jsonl", unverified) as (_, port),
        shop.worker(smtp_url=f"smtp://127.0.0.1:{port}") as worker,
    ):
        sendout = shop.send("spring-voucher", "customers", code=1)
        assert (sendout["state"], sendout["sent"], sendout["refused"], sendout["remaining"]) == ("paused", 0, 0, 200)
        assert sendout["reason"] == REASON
        assert REASON in shop.coupons("outbox").out
        assert REASON in shop.coupons("show", sendout["id"]).out
        assert "Email address is not verified" in shop.coupons("show", sendout["id"], "--replies").out
        worker.says("sendout paused")
    with shop.worker():
        shop.coupons("retry", sendout["id"], "--deferred")
        assert shop.resume(sendout["id"])["sent"] == 200
    assert_own_codes(shop.mails(), addresses(200), codes("SPRING", 200))
