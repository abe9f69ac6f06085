"""No address, code or password is in a log, a stored reason, an error, a header or a health page.

Each test with a shop searches all these texts when it ends. The tests here show that this search can fail, and that
relays which echo addresses do not make it fail.
"""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import aio_pika
import pytest

from coupons.commands import ResumeSendout
from sandbox.process import free_ports
from tests.acceptance.system import Shop, addresses, codes
from tests.leaks import leaks
from tests.waiting import eventually

ADDRESS = "customer1@example.org"
SPRING = codes("SPRING", 3)
ECHO = f"554 5.7.1 <{ADDRESS}>: Relay access denied"


def log_it(shop: Shop, secret: str) -> None:
    with shop.worker_logs[-1].open("a") as log:
        print(f'2026-01-01T00:00:00Z [warning] sendout paused reason="554 {secret}"', file=log)


def print_it(shop: Shop, secret: str) -> None:
    shop.printed.append(("import", f"codes.txt, line 7: {secret!r}"))


def show_it(shop: Shop, secret: str) -> None:
    shop.health_pages.append(f'{{"database": false, "reasons": {{"database": "{secret}"}}}}')


def store_it(table: str, column: str) -> Callable[[Shop, str], None]:
    def store(shop: Shop, secret: str) -> None:
        shop.rows(f"UPDATE {table} SET {column} = $1", f"failed: {secret}.")

    return store


def log_event(shop: Shop, secret: str) -> None:
    shop.rows("INSERT INTO import_event (import_id, text) SELECT id, $1 FROM import_job", f"reading {secret}")


def send_it(shop: Shop, secret: str) -> None:
    async def publish() -> None:
        async with await aio_pika.connect(shop.services.broker_url) as connection, connection.channel() as channel:
            message = aio_pika.Message(b"{}", headers={"x-reason": f"codes.0: {secret}"})
            await channel.default_exchange.publish(message, "coupons.dead")

    asyncio.run(publish())


PLACES: dict[str, Callable[[Shop, str], None]] = {
    "log worker-1.log": log_it,
    "printed by import": print_it,
    "/readyz": show_it,
    "sendout.reason": store_it("sendout", "reason"),
    "sendout.waiting_reason": store_it("sendout", "waiting_reason"),
    "import_job.reason": store_it("import_job", "reason"),
    "import_event.text": log_event,
    "command.rejection_reason": store_it("command", "rejection_reason"),
    "x-reason": send_it,
}


def test_the_search_fails_for_each_place(shop: Shop) -> None:
    """An address and a code are found in each place, and nothing is found before they are there."""
    with shop.worker():
        shop.prepare("spring-voucher", "customers", addresses(3), {"spring-10": SPRING})
        assert shop.send("spring-voucher", "customers")["sent"] == 3
    shop.check_privacy()
    logged = shop.worker_logs[-1].read_text()
    for number, (place, leak) in enumerate(PLACES.items()):
        secret = SPRING[0] if number % 2 else ADDRESS
        leak(shop, secret)
        assert {where.partition(" (")[0]: found for where, found in shop.leaks().items()}[place] == [secret]
    with pytest.raises(AssertionError):
        shop.check_privacy()
    shop.worker_logs[-1].write_text(logged)
    shop.printed.clear()
    shop.health_pages.clear()
    shop.delete_queues("coupons.dead")
    shop.rows("DELETE FROM import_event")
    for table, column in (("sendout", "reason"), ("sendout", "waiting_reason"), ("import_job", "reason")):
        shop.rows(f"UPDATE {table} SET {column} = NULL")
    shop.rows("UPDATE command SET rejection_reason = NULL")


@pytest.mark.parametrize(
    "text",
    [
        ECHO,
        "amqp://guest:hunter2@127.0.0.1:5672/",
        "reason='no mailbox <ada.lovelace+spring@mail.example.co.uk>'",
        "line 7: FAULTA-0000001 is a duplicate",
        "'SPRING-00001'",
    ],
)
def test_addresses_codes_and_passwords_are_found_in_any_text(text: str) -> None:
    """The search finds them between brackets, quotes and punctuation."""
    assert leaks(text) != []


def test_codes_of_any_form_are_found_if_they_are_known() -> None:
    """Codes that look like words are compared with those of the database."""
    assert leaks("duplicate: summer2026.", {"winter2026"}) == []
    assert leaks("duplicate: summer2026.", {"summer2026"}) == ["summer2026"]


def test_harmless_texts_are_not_reported() -> None:
    """Ids, names, hosts and codes of replies are no secrets."""
    assert (
        leaks(f"2026-11-28T10:00:00Z sendout={uuid4()} relay 127.0.0.1:25 fails: 554 5.7.1 UTF-8 a@b ISO-8859-1") == []
    )


def test_a_relay_that_echoes_addresses_leaks_none(shop: Shop) -> None:
    """Refusals, deferrals and a refused sender show codes. The whole reply is with the delivery."""
    audience = [*addresses(1), "refuse.me@example.org", "defer.me@example.org"]
    (port,) = free_ports(1)
    with shop.worker(health_port=port):
        shop.prepare("spring-voucher", "customers", audience, {"spring-10": SPRING})
        sendout = shop.begin_sending("spring-voucher", "customers")
        eventually(lambda: sorted(shop.deliveries(sendout).values()) == ["deferred", "refused", "sent"], "the outcomes")
        shop.check_privacy()
        bad = ("--from", "badsender.shop@example.org")
        shop.coupons("list", "create", "more")
        shop.import_codes("more", codes("MORE", 3))
        shop.coupons(*shop.saving("more", '{{ coupon("more") }}\n'), *bad)
        paused = shop.send("more", "customers", code=1)
        shop.publish(ResumeSendout(sendout=uuid4()))
        eventually(shop.dead, "the rejected command")
        shop.coupons("doctor", code=1)
    assert paused["reason"] == "the relay refuses the sender: 550 5.7.1"
    replies = shop.coupons("show", sendout, "--replies").out
    assert "550 5.1.1 <refuse.me@example.org>: no such mailbox" in replies
    assert "451 4.7.1 <defer.me@example.org>: try again later" in replies
