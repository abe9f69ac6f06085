"""A relay that refuses all mails: the operator sees why, fixes it, and each recipient gets a mail with their code."""

from pathlib import Path

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.system import Shop, addresses, codes
from tests.smtp_server import process

REASON = "the relay refuses the message: 554"
TIME_PASSES = (
    "UPDATE delivery SET due_at = now() WHERE state = 'deferred' RETURNING number",
    "UPDATE delivery_batch SET due_at = now() WHERE NOT closed RETURNING number",
)


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


def test_a_sendout_that_is_resumed_before_the_fix_ends_and_can_be_retried(shop: Shop, tmp_path: Path) -> None:
    """The relay refuses each recipient again, so all are refused: exit code 1. After the fix, `retry` mails them."""
    audience = [f"ada@d{number}.example" for number in range(3)]
    shop.has("spring-voucher", "customers", audience, {"spring-10": codes("SPRING", 3)})
    denied = {"RCPT": "554 5.7.1 relaying denied\r\n"}
    with process(tmp_path / "none.jsonl", denied) as (_, port), shop.worker(smtp_url=f"smtp://127.0.0.1:{port}"):
        sendout = shop.send("spring-voucher", "customers", code=1)
        assert (sendout["state"], sendout["refused"]) == ("paused", 0)
        assert sendout["reason"] == "the relay refuses the sender or the recipients: 554 5.7.1"
        for statement in TIME_PASSES:
            shop.rows(statement)
        ended = shop.resume(sendout["id"], code=1)
        assert (ended["state"], ended["sent"], ended["refused"]) == ("finished", 0, 3)
        assert shop.get_list("spring-10").available == 3
    with shop.worker():
        done = shop.coupons("retry", sendout["id"], "--wait", "--json").json
        assert (done["state"], done["sent"], done["refused"]) == ("finished", 3, 0)
    assert_own_codes(shop.mails(), audience, codes("SPRING", 3))
