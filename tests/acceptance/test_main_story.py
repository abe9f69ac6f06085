"""The main job, end to end: import, sendout, Interrupted, import what is missing, resume. The mails are the proof."""

from contextlib import ExitStack

from coupons.commands import ImportCoupons, ResumeSendout, StartSendout
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.programs import INTERRUPTED
from tests.acceptance.shop import Shop, addresses, codes

CUSTOMERS = addresses(1_000)
SPRING = codes("SPRING", 1_000)
SUMMER = codes("SUMMER", 1_000)

IF_ONE_IS_LEFT = '{% if has_coupon("spring-10") %}Your code: {% endif %}{{ coupon("spring-10") }}\n'
SORRY = "Sorry, they were quickly gone."


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


def test_a_short_list_holds_back_every_mail_until_it_is_filled(shop: Shop) -> None:
    """600 codes for 1,000: interrupted, 400 missing, 0 mails; 400 more and resume: 1,000 mails with as many codes."""
    with shop.worker():
        shop.prepare("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:600]})
        play(shop)
        spring = shop.list_named("spring-10")
        assert (spring.available, spring.promised, spring.bound, spring.sent) == (0, 0, 0, 1_000)


def test_an_interrupted_sendout_says_what_is_missing(shop: Shop) -> None:
    """The outbox and `show` give the numbers of the list, and a resume that comes too early gives the new ones."""
    with shop.worker():
        shop.has("spring-voucher", "customers", CUSTOMERS[:100], {"spring-10": SPRING[:60]})
        sendout = shop.send("spring-voucher", "customers", code=INTERRUPTED)
        assert "spring-10: 40 missing" in shop.coupons("outbox", "--status", "interrupted").out
        shown = shop.coupons("show", sendout["id"]).out
        assert all(number in shown for number in ("100 needed", "60 available", "40 missing"))
        shop.import_codes("spring-10", SPRING[60:70])
        still = shop.resume(sendout["id"], code=INTERRUPTED)
        assert (still["state"], still["lists"][0]["missing"]) == ("interrupted", 30)
        assert shop.mails() == []


def test_a_second_list_that_is_short_holds_nothing_of_the_first(shop: Shop) -> None:
    """All lists or none: with 1,000 and 600 codes nothing is taken; afterwards everybody has one code of each."""
    with shop.worker():
        shop.has("two-codes", "customers", CUSTOMERS, {"spring-10": SPRING, "summer-20": SUMMER[:600]})
        sendout = shop.send("two-codes", "customers", code=INTERRUPTED)
        assert {each["name"]: each["missing"] for each in sendout["lists"]} == {"spring-10": 0, "summer-20": 400}
        spring = shop.list_named("spring-10")
        assert (spring.available, spring.promised, spring.bound) == (1_000, 0, 0)
        shop.import_codes("summer-20", SUMMER[600:])
        assert shop.mails() == []
        shop.resume(sendout["id"])
        assert_own_codes(shop.mails(), CUSTOMERS, SPRING, SUMMER)


def test_an_alternative_text_stands_in_for_codes_that_are_missing(shop: Shop) -> None:
    """600 codes for 1,000 recipients: nobody waits, 600 mails have a code of their own, 400 the list's text."""
    with shop.worker():
        shop.coupons("list", "create", "spring-10", "--shortage", "text", "--alternative-text", SORRY)
        shop.import_codes("spring-10", SPRING[:600])
        shop.coupons(*shop.importing_group("customers", CUSTOMERS))
        shop.coupons(*shop.saving("spring-voucher", IF_ONE_IS_LEFT))
        assert shop.send("spring-voucher", "customers")["state"] == "finished"
        mails = shop.mails()
        assert sorted(mail.recipient for mail in mails) == sorted(CUSTOMERS)
        with_code = [mail for mail in mails if mail.codes]
        assert len(with_code) == 600
        assert_own_codes(with_code, (mail.recipient for mail in with_code), SPRING[:600])
        assert all(mail.text == f"Your code: {mail.codes[0]}\n" for mail in with_code)
        assert {mail.text for mail in mails if not mail.codes} == {f"{SORRY}\n"}
        assert {mail.html for mail in mails if not mail.codes} == {f"<p>{SORRY}\n</p>\n"}


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
        assert len(shop.rows("SELECT FROM import_job WHERE rejected = 0 AND state = 'finished'")) == 2
    assert shop.dead() == []


def test_the_command_line_run_again_with_the_same_id_is_the_same_command(shop: Shop) -> None:
    """`--id` makes an import or a sendout safe to repeat, perhaps after a connection was lost."""
    import_id, sendout_id = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-8999-aaaaaaaaaaaa"
    with shop.worker():
        shop.has("spring-voucher", "few", CUSTOMERS[:5], {"spring-10": []})
        for _ in range(2):
            imported = shop.import_codes("spring-10", SPRING[:10], "--id", import_id, "--json").json
            assert (imported["id"], imported["added"], imported["rejected"]) == (import_id, 10, 0)
        for _ in range(2):
            arguments = ("--message", "spring-voucher", "--group", "few", "--id", sendout_id, "--wait", "--json")
            assert shop.coupons("send", *arguments).json["sent"] == 5
        assert_own_codes(shop.mails(), CUSTOMERS[:5], SPRING[:10])
    assert shop.dead() == []
