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


def html_of(shop: Shop, mail: Received) -> str:
    """Return the HTML part of the last mail to this recipient."""
    (email,) = [each.email for each in shop.ledger() if each.rcpt_to[0] == mail.recipient][-1:]
    html = email.get_body(("html",))
    assert html
    return str(html.get_content())
