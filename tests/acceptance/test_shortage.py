"""Lists with too few codes for a sendout: it is interrupted, or the list's alternative text is sent."""

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import INTERRUPTED
from tests.acceptance.system import Shop, addresses, codes

CUSTOMERS = addresses(1_000)


def test_an_interrupted_sendout_shows_its_missing_codes(open_shop: Shop) -> None:
    """The outbox and `show` have the list's numbers of codes. A resume with too few codes updates the numbers."""
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


def test_a_shortage_of_one_list_reserves_no_code_of_another(open_shop: Shop) -> None:
    """A sendout reserves all its codes or none. After an import each recipient has one code of each list."""
    spring, summer = codes("SPRING", 1_000), codes("SUMMER", 1_000)
    open_shop.has("two-codes", "customers", CUSTOMERS, {"spring-10": spring, "summer-20": summer[:600]})
    sendout = open_shop.send("two-codes", "customers", code=INTERRUPTED)
    assert {each["name"]: each["missing"] for each in sendout["lists"]} == {"spring-10": 0, "summer-20": 400}
    first = open_shop.get_list("spring-10")
    assert (first.available, first.reserved, first.assigned) == (1_000, 0, 0)
    open_shop.import_codes("summer-20", summer[600:])
    assert open_shop.mails(sendout["id"]) == []
    open_shop.resume(sendout["id"])
    assert_own_codes(open_shop.mails(sendout["id"]), CUSTOMERS, spring, summer)
    open_shop.verify()


def test_an_alternative_text_replaces_missing_codes(open_shop: Shop) -> None:
    """With 600 codes for 1,000 recipients, 600 mails have their own code and 400 have the list's alternative text."""
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
