"""Alternative texts with attributes, from the command line to the mails."""

from tests.acceptance.mails import Received
from tests.acceptance.system import Shop, codes


def test_recipients_without_a_code_get_the_alternative_text_with_their_attributes(open_shop: Shop) -> None:
    """The text is rendered for each recipient, escaped in HTML, and uses its default for one without the attribute."""
    text = 'next time, {{ first_name | default("friend") }} & {{ nick | default("all") }}'
    open_shop.coupons("list", "create", "few", "--shortage", "text", "--alternative-text", text)
    open_shop.import_codes("few", codes("FEW", 1))
    people = open_shop.file("people.csv", "email;first_name;nick\nada@example.org;Ada;A<b>\nbob@example.org;Bob;\n")
    open_shop.coupons("group", "import", people, "--group", "people", "--wait")
    letter = open_shop.file("letter.txt", 'Dear {{ first_name }}: {{ coupon("few") }}\n')
    html = open_shop.file("letter.html", '<p>{{ coupon("few") }}</p>\n')
    open_shop.coupons("message", "save", "letter", "--subject", "s", "--text", letter, "--html", html)
    shown = open_shop.coupons("message", "preview", "letter", "--no-codes", "--attribute", "first_name=Eve")
    assert "Dear Eve: next time, Eve & all\n" in shown.out
    shown = open_shop.coupons("message", "preview", "letter", "--attribute", "first_name=Eve")
    assert "Dear Eve: few_previewCoupon\n" in shown.out
    to = ("--to", "editor@example.org", "--no-codes", "--attribute", "first_name=Eve", "--attribute", "nick=<i>")
    open_shop.coupons("message", "test", "letter", *to)
    sendout = open_shop.coupons("send", "--message", "letter", "--group", "people", "--wait", "--json").json
    mails = {mail.recipient: mail for mail in open_shop.mails()}
    assert mails["editor@example.org"].text == "Dear Eve: next time, Eve & <i>\n"
    (without,) = (mail for mail in open_shop.mails(sendout["id"]) if not mail.codes)
    expected = {
        "ada@example.org": "Dear Ada: next time, Ada & A<b>\n",
        "bob@example.org": "Dear Bob: next time, Bob & \n",
    }
    assert without.text == expected[without.recipient]
    assert "<b>" not in html_of(open_shop, without)


def test_an_alternative_text_is_checked_like_a_message(open_shop: Shop) -> None:
    """Unknown names are refused unless declared, foreign placeholders reported. Messages name the attributes."""
    text = ("--shortage", "text", "--alternative-text")
    create = ("list", "create", "checked", *text, "Sorry {name}, {{ nope }}")
    refused = open_shop.coupons(*create, code=1).err
    assert refused.startswith("coupons: list checked: alternative text: undefined name nope; recipients have ")
    warning = (
        'coupons: warning: alternative text, line 1: "{name}" is mailed as it is; for an attribute write {{ name }}\n'
    )
    assert open_shop.coupons(*create, "--attribute", "nope").err == warning
    assert "undefined name other" in open_shop.coupons("list", "change", "checked", *text, "{{ other }}", code=1).err
    changed = open_shop.coupons("list", "change", "checked", *text, "{other} {{ other }}", "--attribute", "other")
    assert changed.err == warning.replace("name", "other")
    assert open_shop.coupons("list", "show", "checked").err.startswith(changed.err)
    letter = open_shop.file("checked.txt", '{{ coupon("checked") }}\n')
    saved = open_shop.coupons("message", "save", "checked", "--subject", "s", "--text", letter)
    assert "\nrecipients need other for the alternative texts of its lists\n" in saved.out
    assert "Attributes of alternative texts: other\n" in open_shop.coupons("message", "show", "checked").out
    assert open_shop.coupons("message", "show", "checked", "--json").json["alternative_attributes"] == ["other"]


def html_of(shop: Shop, mail: Received) -> str:
    """Return the HTML part of the last mail to this recipient."""
    (email,) = [each.email for each in shop.ledger() if each.rcpt_to[0] == mail.recipient][-1:]
    html = email.get_body(("html",))
    assert html
    return str(html.get_content())
