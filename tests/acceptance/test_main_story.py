"""The main job, end to end: import, sendout, Interrupted, import what is missing, resume. The mails are the proof."""

from contextlib import ExitStack

from coupons.commands import ImportCoupons, ResumeSendout, StartSendout
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import INTERRUPTED
from tests.acceptance.system import Shop, addresses, codes

CUSTOMERS = addresses(1_000)
SPRING = codes("SPRING", 1_000)


def play(shop: Shop) -> None:
    """With 600 codes for 1,000 customers nobody is mailed; with 400 more everybody is, with a code of their own."""
    sendout = shop.send("spring-voucher", "customers", code=INTERRUPTED)
    assert (sendout["state"], sendout["lists"][0]["missing"]) == ("interrupted", 400)
    shop.verify()
    shop.import_codes("spring-10", SPRING[600:])
    assert shop.mails() == []
    finished = shop.resume(sendout["id"])
    assert (finished["state"], finished["sent"]) == ("finished", 1_000)
    assert_own_codes(shop.mails(), CUSTOMERS, SPRING)
    assert len(shop.mails(sendout["id"])) == 1_000
    shop.verify()


def test_a_short_list_holds_back_every_mail_until_it_is_filled(shop: Shop) -> None:
    """600 codes for 1,000: interrupted, 400 missing, 0 mails; 400 more and resume: 1,000 mails with as many codes."""
    with shop.worker():
        shop.prepare("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:600]})
        play(shop)
        spring = shop.list_named("spring-10")
        assert (spring.available, spring.reserved, spring.assigned, spring.sent) == (0, 0, 0, 1_000)


def test_two_workers_share_the_work(shop: Shop) -> None:
    """Two processes that claim batches of the same sendout give no code to two people, and nobody two mails."""
    shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:600]})
    with shop.worker(batch_size=50), shop.worker(batch_size=50):
        play(shop)


def test_roles_can_be_split_over_processes(shop: Shop) -> None:
    """Import, sendout and delivery in a process each do together what one process does."""
    shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:600]})
    with ExitStack() as stack:
        for role in ("import", "sendout", "deliver"):
            stack.enter_context(shop.worker(role))
        play(shop)


def test_a_command_that_comes_twice_is_carried_out_once(shop: Shop) -> None:
    """Import, sendout and resume published twice with the same id: one import, one sendout, one mail a person."""
    first = ImportCoupons(list="spring-10", codes=tuple(SPRING[:600]))
    second = ImportCoupons(list="spring-10", codes=tuple(SPRING[600:]))
    sendout = StartSendout(message="spring-voucher", group="customers")
    resume = ResumeSendout(sendout=sendout.id)
    with shop.worker(), shop.worker():
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": []})
        shop.publish(first, first)
        shop.becomes("finished", first.id)
        shop.publish(sendout, sendout)
        shop.becomes("interrupted", sendout.id)
        shop.publish(second, second, first)
        shop.becomes("finished", second.id)
        shop.publish(resume, resume, sendout)
        shop.becomes("finished", sendout.id)
        shop.publish(resume, sendout)
        assert_own_codes(shop.mails(), CUSTOMERS, SPRING)
        assert len(shop.coupons("outbox", "--json").json) == 1
        imported = "SELECT FROM import_job WHERE list_id IS NOT NULL AND rejected = 0 AND state = 'finished'"
        assert len(shop.rows(imported)) == 2
    assert shop.dead() == []
