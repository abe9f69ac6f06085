"""The main job, end to end: import, sendout, Interrupted, import what is missing, resume. The mails are the proof."""

from contextlib import ExitStack

from coupons.commands import ImportCoupons, ResumeSendout, StartSendout
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.shop import INTERRUPTED, Shop, addresses, codes

CUSTOMERS = addresses(1_000)
SPRING = codes("SPRING", 1_000)
SUMMER = codes("SUMMER", 1_000)

TWO_LISTS = 'Hi {{ first_name }}: {{ coupon("spring-10") }} now, {{ coupon("summer-20") }} later\n'
IF_ONE_IS_LEFT = '{% if has_coupon("spring-10") %}Your code: {% endif %}{{ coupon("spring-10") }}\n'
SORRY = "Sorry, they were quickly gone."


def prepare(shop: Shop) -> None:
    """1,000 customers, a message with a code, and 600 codes."""
    shop.create_list("spring-10")
    shop.import_codes("spring-10", SPRING[:600])
    shop.import_group("customers", CUSTOMERS)
    shop.save_message("spring-voucher")


def play(shop: Shop) -> None:
    """Too few codes: nobody is mailed. Enough: everybody is, with a code of their own."""
    prepare(shop)
    sendout = shop.send("spring-voucher", "customers", code=INTERRUPTED)
    assert (sendout["state"], sendout["lists"][0]["missing"]) == ("interrupted", 400)
    assert shop.mails() == []
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
        play(shop)
        in_numbers = shop.list_named("spring-10")
        assert [in_numbers[name] for name in ("available", "promised", "bound", "sent")] == [0, 0, 0, 1_000]
        assert shop.coupons("outbox", "--status", "interrupted").out == ""
        assert "finished" in shop.coupons("outbox").out


def test_an_interrupted_sendout_says_what_is_missing(shop: Shop) -> None:
    """The outbox and `show` give the numbers of the list, and a resume that comes too early gives the new ones."""
    with shop.worker():
        prepare(shop)
        sendout = shop.send("spring-voucher", "customers", code=INTERRUPTED)
        assert "list spring-10: 1000 needed, 600 available, 400 missing" in shop.coupons("outbox").out
        assert (
            "list spring-10: 1,000 needed, 0 held, 600 available, 400 missing"
            in shop.coupons("show", sendout["id"]).out
        )
        shop.import_codes("spring-10", SPRING[600:700])
        still = shop.resume(sendout["id"], code=INTERRUPTED)
        assert (still["state"], still["lists"][0]["missing"]) == ("interrupted", 300)
        assert shop.mails() == []
        shop.verify()


def test_a_second_list_that_is_short_holds_nothing_of_the_first(shop: Shop) -> None:
    """All lists or none: with 1,000 and 600 codes nothing is taken; afterwards everybody has one code of each."""
    with shop.worker():
        prepare(shop)
        shop.import_codes("spring-10", SPRING[600:])
        shop.create_list("summer-20")
        shop.import_codes("summer-20", SUMMER[:600])
        shop.save_message("two-codes", text=TWO_LISTS, html=TWO_LISTS)
        sendout = shop.send("two-codes", "customers", code=INTERRUPTED)
        assert {each["name"]: each["missing"] for each in sendout["lists"]} == {"spring-10": 0, "summer-20": 400}
        spring = shop.list_named("spring-10")
        assert (spring["available"], spring["promised"], spring["bound"]) == (1_000, 0, 0)
        assert shop.mails() == []
        shop.import_codes("summer-20", SUMMER[600:])
        shop.resume(sendout["id"])
        assert_own_codes(shop.mails(), CUSTOMERS, SPRING, SUMMER)
        shop.verify()


def test_an_alternative_text_stands_in_for_codes_that_are_missing(shop: Shop) -> None:
    """600 codes for 1,000 recipients: nobody waits, 600 mails have a code of their own, 400 the list's text."""
    with shop.worker():
        shop.create_list("spring-10", "--shortage", "text", "--alternative-text", SORRY)
        shop.import_codes("spring-10", SPRING[:600])
        shop.import_group("customers", CUSTOMERS)
        shop.save_message("spring-voucher", text=IF_ONE_IS_LEFT, html=IF_ONE_IS_LEFT)
        assert shop.send("spring-voucher", "customers")["state"] == "finished"
        mails = shop.mails()
        assert sorted(mail.recipient for mail in mails) == sorted(CUSTOMERS)
        lucky = [mail for mail in mails if mail.codes]
        assert_own_codes(lucky, (mail.recipient for mail in lucky), SPRING[:600])
        assert len(lucky) == 600
        assert all(mail.text == f"Your code: {mail.codes[0]}\n" for mail in lucky)
        assert [mail.text for mail in mails if not mail.codes] == [f"{SORRY}\n"] * 400
        assert [mail.html for mail in mails if not mail.codes] == [f"{SORRY}\n"] * 400
        shop.verify()


def test_two_workers_share_the_work(shop: Shop) -> None:
    """Both deliver batches of the same sendout, and still every code has one recipient."""
    with shop.worker(batch_size=50), shop.worker(batch_size=50):
        play(shop)


def test_roles_can_be_split_over_processes(shop: Shop) -> None:
    """Import, sendout and delivery in a process each do together what one process does."""
    with ExitStack() as stack:
        for role in ("import", "sendout", "deliver"):
            stack.enter_context(shop.worker(role))
        play(shop)


def test_a_command_that_comes_twice_is_carried_out_once(shop: Shop) -> None:
    """Import, sendout and resume published twice with the same id: one import, one sendout, one mail a person."""
    spring_600 = ImportCoupons(list="spring-10", codes=tuple(SPRING[:600]))
    spring_400 = ImportCoupons(list="spring-10", codes=tuple(SPRING[600:]))
    sendout = StartSendout(message="spring-voucher", group="customers")
    resume = ResumeSendout(sendout=sendout.id)
    with shop.worker(), shop.worker():
        shop.create_list("spring-10")
        shop.import_group("customers", CUSTOMERS)
        shop.save_message("spring-voucher")
        shop.publish(spring_600, spring_600)
        shop.import_ends(spring_600.id)
        shop.publish(sendout, sendout)
        assert shop.sendout_is(sendout.id, "interrupted")
        shop.publish(spring_400, spring_400, spring_600)
        shop.import_ends(spring_400.id)
        shop.publish(resume, resume, sendout)
        shop.sendout_is(sendout.id, "finished")
        shop.publish(resume, sendout)
        assert_own_codes(shop.mails(), CUSTOMERS, SPRING)
        assert shop.dead() == []
        assert len(shop.coupons("outbox", "--json").json) == 1
        assert len(shop.rows("SELECT FROM import_job WHERE rejected = 0 AND state = 'finished'")) == 2
        shop.verify()


def test_an_import_or_a_sendout_begun_twice_by_the_command_line_is_one(shop: Shop) -> None:
    """`--id` makes a command that is run again, perhaps after a lost connection, the same command."""
    import_id, sendout_id = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-8999-aaaaaaaaaaaa"
    with shop.worker():
        shop.create_list("spring-10")
        shop.import_group("few", CUSTOMERS[:5])
        shop.save_message("spring-voucher")
        for _ in range(2):
            imported = shop.import_codes("spring-10", SPRING[:10], "--id", import_id, "--json").json
            assert (imported["id"], imported["added"], imported["rejected"]) == (import_id, 10, 0)
        for _ in range(2):
            arguments = ("--message", "spring-voucher", "--group", "few", "--id", sendout_id, "--wait", "--json")
            assert shop.coupons("send", *arguments).json["sent"] == 5
        assert_own_codes(shop.mails(), CUSTOMERS[:5], SPRING[:10])
        assert shop.dead() == []
        shop.verify()
