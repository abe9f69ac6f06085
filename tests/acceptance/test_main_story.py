"""The main workflow: import codes, send, get interrupted, import the missing codes, resume, and check the mails."""

from contextlib import ExitStack

from coupons.commands import ImportCoupons, ResumeSendout, StartSendout
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import INTERRUPTED
from tests.acceptance.system import Shop, addresses, codes

CUSTOMERS = addresses(1_000)
SPRING = codes("SPRING", 1_000)


def play(shop: Shop) -> None:
    """With 600 codes for 1,000 customers no mail is sent. With 400 more each customer gets a mail with an own code."""
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


def test_a_sendout_with_too_few_codes_sends_nothing_until_it_is_resumed(shop: Shop) -> None:
    """With 600 codes for 1,000 recipients no mail is sent. With 400 more codes, a resume sends 1,000 mails."""
    with shop.worker():
        shop.prepare("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:600]})
        play(shop)
        spring = shop.get_list("spring-10")
        assert (spring.available, spring.reserved, spring.assigned, spring.sent) == (0, 0, 0, 1_000)


def test_two_workers_share_the_work(shop: Shop) -> None:
    """Two workers claim batches of one sendout; no code is assigned twice, and no recipient gets two mails."""
    shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:600]})
    with shop.worker(batch_size=50), shop.worker(batch_size=50):
        play(shop)


def test_roles_can_be_split_over_processes(shop: Shop) -> None:
    """Three workers with one role each do the same work as one worker with all roles."""
    shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:600]})
    with ExitStack() as stack:
        for role in ("import", "sendout", "deliver"):
            stack.enter_context(shop.worker(role))
        play(shop)


def test_a_duplicate_command_is_executed_once(shop: Shop) -> None:
    """Two commands with the same id result in one import, one sendout and one mail per recipient."""
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
