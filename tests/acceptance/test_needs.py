"""A recipient takes only the coupons that their mail prints, from the message to the mail."""

import csv
import io

from tests.acceptance.mails import Received
from tests.acceptance.system import Shop, codes

TEXT = """\
{{% if tier == "gold" %}}Gold: {{{{ coupon("{0}-gold") }}}}{{% else %}}Basic: {{{{ coupon("{0}-basic") }}}}{{% endif %}}
"""


def stock(shop: Shop, name: str, *, gold: int) -> None:
    """Create two lists with codes, a group of 10 gold and 90 other recipients, and a message with both lists."""
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(("email", "tier"))
    writer.writerows((f"c{n:02}@example.org", "gold" if n % 10 == 3 else "silver") for n in range(100))
    people = ("group", "import", shop.file("people.csv", rows.getvalue()), "--group", name, "--wait")
    shop.together(people, ("list", "create", f"{name}-gold"), ("list", "create", f"{name}-basic"))
    given = {f"{name}-gold": codes(f"{name}GOLD".upper(), gold), f"{name}-basic": codes(f"{name}BASIC".upper(), 90)}
    shop.together(*(shop.importing(each, some) for each, some in given.items()))
    text = shop.file("tier.txt", TEXT.format(name))
    saved = shop.coupons("message", "save", name, "--subject", "Hello", "--text", text)
    assert f"codes from {name}-basic, {name}-gold depending on tier" in saved.out


def by_tier(mails: list[Received]) -> tuple[list[str], list[str]]:
    """Return the codes of gold and of other recipients. Each mail must print one code."""
    assert all(len(mail.codes) == 1 for mail in mails)
    gold = [mail.codes[0] for mail in mails if mail.recipient[2] == "3"]
    other = [mail.codes[0] for mail in mails if mail.recipient[2] != "3"]
    return sorted(gold), sorted(other)


def test_each_recipient_takes_only_the_coupon_that_the_mail_prints(open_shop: Shop) -> None:
    """10 gold of 100 recipients need 10 codes of one list and 90 of the other, and each gets a mail with their code."""
    stock(open_shop, "tier", gold=10)
    gold = open_shop.coupons("message", "preview", "tier", "--set", "tier=gold").out
    assert gold == "Subject: Hello\nCodes: tier-gold\n\nGold: tier-gold_previewCoupon\n\n"
    other = open_shop.coupons("message", "preview", "tier", "--attribute", "tier=silver").out
    assert other == "Subject: Hello\nCodes: tier-basic\n\nBasic: tier-basic_previewCoupon\n\n"
    open_shop.coupons("message", "test", "tier", "--to", "editor@example.org", "--set", "tier=gold")
    assert open_shop.mails()[-1].text == "Gold: tier-gold_previewCoupon\n"

    sendout = open_shop.send("tier", "tier")
    assert (sendout["sent"], sendout["refused"]) == (100, 0)
    numbers = {each["name"]: (each["needed"], each["sent"]) for each in sendout["lists"]}
    assert numbers == {"tier-gold": (10, 10), "tier-basic": (90, 90)}
    assert by_tier(open_shop.mails(sendout["id"])) == (codes("TIERGOLD", 10), codes("TIERBASIC", 90))
    shown = open_shop.coupons("show", sendout["id"]).out
    assert "10 needed" in shown
    assert "90 needed" in shown


def test_a_shortage_of_one_tier_interrupts_the_sendout(open_shop: Shop) -> None:
    """The reason has the needs of the short list alone; after an import of its codes, all mails are sent."""
    stock(open_shop, "short", gold=8)
    interrupted = open_shop.send("short", "short", code=4)
    assert interrupted["reason"] == "list short-gold: 10 needed, 8 available, 2 missing"
    assert open_shop.mails(interrupted["id"]) == []
    open_shop.import_codes("short-gold", ["SHORTGOLD-00099", "SHORTGOLD-00098"])
    open_shop.resume(interrupted["id"])
    gold, other = by_tier(open_shop.mails(interrupted["id"]))
    assert gold == [*codes("SHORTGOLD", 8), "SHORTGOLD-00098", "SHORTGOLD-00099"]
    assert other == codes("SHORTBASIC", 90)


def test_a_message_that_can_never_be_sent_is_not_saved(open_shop: Shop) -> None:
    """Each reason is one line that names the coupon and the remedy, and nothing is saved."""
    open_shop.together(("list", "create", "never-a"), ("list", "create", "never-b"))
    text = '{% if has_coupon("never-a") %}{{ coupon("never-a") }}{% else %}{{ coupon("never-b") }}{% endif %}\n'
    saving = ("message", "save", "never", "--subject", "Hello", "--text", open_shop.file("never.txt", text))
    error = open_shop.coupons(*saving, code=1).err
    assert 'text, line 1: if has_coupon("never-a") is false, this prints coupon("never-b"), but no code is' in error
    assert "never" not in open_shop.coupons("message", "ls").out


def test_a_preview_fails_where_the_mail_would_fail(open_shop: Shop) -> None:
    """A preview and a test mail report a condition that cannot be evaluated, and which values to pass."""
    open_shop.coupons("list", "create", "points")
    text = open_shop.file("points.txt", 'Hello{% if points | int > 9 %} {{ coupon("points") }}{% endif %}\n')
    open_shop.coupons("message", "save", "points", "--subject", "Hi", "--text", text, "--attribute", "points")
    error = "a condition with points cannot be evaluated: InvalidOperation; pass --set points=VALUE"
    for action in (("preview", "points"), ("test", "points", "--to", "a@example.org")):
        assert error in open_shop.coupons("message", *action, code=1).err
        open_shop.coupons("message", *action, "--attribute", "points=12")
