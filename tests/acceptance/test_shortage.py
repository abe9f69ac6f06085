"""Lists that have too few codes for a sendout, in the two ways that a list can be told to take it."""

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import INTERRUPTED
from tests.acceptance.system import Shop, addresses, codes

CUSTOMERS = addresses(1_000)


def test_an_interrupted_sendout_says_what_is_missing(open_shop: Shop) -> None:
    """The outbox and `show` give the numbers of the list, and a resume that comes too early gives the new ones."""
    winter = codes("WINTER", 70)
    open_shop.has("winter", "hundred", CUSTOMERS[:100], {"winter-30": winter[:60]})
    sendout = open_shop.send("winter", "hundred", code=INTERRUPTED)
    assert "winter-30: 40 missing" in open_shop.coupons("outbox", "--state", "interrupted").out
    shown = open_shop.coupons("show", sendout["id"]).out
    assert all(number in shown for number in ("100 needed", "60 available", "40 missing"))
    open_shop.import_codes("winter-30", winter[60:])
    still = open_shop.resume(sendout["id"], code=INTERRUPTED)
    assert (still["state"], still["lists"][0]["missing"]) == ("interrupted", 30)
    assert open_shop.mails(sendout["id"]) == []


def test_a_second_list_that_is_short_holds_nothing_of_the_first(open_shop: Shop) -> None:
    """All lists or none: with 1,000 and 600 codes nothing is taken; afterwards everybody has one code of each."""
    spring, summer = codes("SPRING", 1_000), codes("SUMMER", 1_000)
    open_shop.has("two-codes", "customers", CUSTOMERS, {"spring-10": spring, "summer-20": summer[:600]})
    sendout = open_shop.send("two-codes", "customers", code=INTERRUPTED)
    assert {each["name"]: each["missing"] for each in sendout["lists"]} == {"spring-10": 0, "summer-20": 400}
    first = open_shop.list_named("spring-10")
    assert (first.available, first.reserved, first.assigned) == (1_000, 0, 0)
    open_shop.import_codes("summer-20", summer[600:])
    assert open_shop.mails(sendout["id"]) == []
    open_shop.resume(sendout["id"])
    assert_own_codes(open_shop.mails(sendout["id"]), CUSTOMERS, spring, summer)
    open_shop.verify()


def test_an_alternative_text_stands_in_for_codes_that_are_missing(open_shop: Shop) -> None:
    """600 codes for 1,000 recipients: nobody waits, 600 mails have a code of their own, 400 the list's text."""
    sorry = "Sorry, they were quickly gone."
    text = '{% if has_coupon("autumn-5") %}Your code: {% endif %}{{ coupon("autumn-5") }}\n'
    autumn = codes("AUTUMN", 600)
    options = ("--shortage", "text", "--alternative-text", sorry)
    create = ("list", "create", "autumn-5", *options)
    open_shop.together(create, open_shop.importing_group("autumn", CUSTOMERS))
    open_shop.together(open_shop.importing("autumn-5", autumn), open_shop.saving("autumn", text))
    sendout = open_shop.send("autumn", "autumn")
    assert sendout["state"] == "finished"
    mails = open_shop.mails(sendout["id"])
    assert sorted(mail.recipient for mail in mails) == sorted(CUSTOMERS)
    with_code = [mail for mail in mails if mail.codes]
    assert len(with_code) == 600
    assert_own_codes(with_code, (mail.recipient for mail in with_code), autumn)
    assert all(mail.text == f"Your code: {mail.codes[0]}\n" for mail in with_code)
    assert {mail.text for mail in mails if not mail.codes} == {f"{sorry}\n"}
    assert {mail.html for mail in mails if not mail.codes} == {f"<p>{sorry}\n</p>\n"}
    open_shop.verify()
