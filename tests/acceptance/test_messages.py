"""What a message may show, who gets it, and what previews and test mails never do: use a code."""

from email.message import EmailMessage

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.system import Shop, addresses, codes


def test_a_message_shows_one_code_of_each_list_that_it_names(open_shop: Shop) -> None:
    """Three lists, three codes in every mail, each of them somebody's own."""
    lists = {"red-1": codes("RED", 20), "green-2": codes("GREEN", 20), "blue-3": codes("BLUE", 20)}
    open_shop.has("three-lists", "twenty", addresses(20), lists)
    sendout = open_shop.send("three-lists", "twenty")
    assert_own_codes(open_shop.mails(sendout["id"]), addresses(20), *lists.values())


def test_a_list_named_twice_shows_the_same_code_twice(open_shop: Shop) -> None:
    """A recipient has one code of a list, wherever the message prints it; each needs one code, not two."""
    text = 'Code {{ coupon("twice") }}, again {{ coupon("TWICE") }}\n'
    open_shop.has("twice", "ten", addresses(10), {"twice": codes("TWICE", 10)}, text=text)
    sendout = open_shop.send("twice", "ten")
    mails = open_shop.mails(sendout["id"])
    assert_own_codes(mails, addresses(10), codes("TWICE", 10))
    assert all(mail.text == f"Code {mail.codes[0]}, again {mail.codes[0]}\n" for mail in mails)


def test_the_same_address_twice_gets_one_mail(open_shop: Shop) -> None:
    """Letter case and blanks make no second person: not in one file, not in a second one, not in a command."""
    open_shop.has("once", "first", ["ada@example.org", "Grace@example.org"], {"once": codes("ONCE", 3)})
    again = open_shop.importing_group(
        "first", ["ADA@example.org", " ada@Example.org ", "new@example.org", "NEW@example.org"]
    )
    result = open_shop.coupons(*again, "--json", code=3).json
    assert (result["added"], result["known"], len(result["rejected"])) == (1, 1, 2)
    sendout = open_shop.send("once", "first")
    assert sendout["recipients"] == 3
    mails = open_shop.mails(sendout["id"])
    assert_own_codes(mails, ["ada@example.org", "Grace@example.org", "new@example.org"], codes("ONCE", 3))


def test_recipients_can_be_given_by_address(open_shop: Shop) -> None:
    """`send --to` mails to these people, and the same one in other letters is one person."""
    text = 'Dear {{ email }}, {{ first_name | default("friend") }}: {{ coupon("given") }}\n'
    open_shop.has("given", "nobody-else", ["other@example.org"], {"given": codes("GIVEN", 2)}, text=text)
    to = ("--to", "ada@example.org", "--to", "grace@example.org", "--to", "ADA@example.org")
    saved = open_shop.file("given.txt", text)
    open_shop.coupons("message", "save", "given", "--subject", "Hello", "--text", saved)
    sendout = open_shop.coupons("send", "--message", "given", *to, "--wait", "--json").json
    mails = open_shop.mails(sendout["id"])
    assert {mail.recipient for mail in mails} == {"ada@example.org", "grace@example.org"}
    assert sorted(code for mail in mails for code in mail.codes) == codes("GIVEN", 2)
    assert all(mail.text.startswith(f"Dear {mail.recipient}, friend: GIVEN-") for mail in mails)


def test_a_condition_asks_about_this_recipient(open_shop: Shop) -> None:
    """Where codes run out and a text stands in, `has_coupon` is true for those with a code and false for the others."""
    text = '{% if has_coupon("some") %}Redeem {{ coupon("some") }}{% else %}No luck: {{ coupon("some") }}{% endif %}\n'
    open_shop.has(
        "condition", "five", addresses(5), {"some": codes("SOME", 2)}, text=text, alternative_text="next time"
    )
    sendout = open_shop.send("condition", "five")
    texts = sorted(mail.text for mail in open_shop.mails(sendout["id"]))
    assert texts == ["No luck: next time\n"] * 3 + ["Redeem SOME-00001\n", "Redeem SOME-00002\n"]


def test_previews_and_test_mails_never_use_a_code(open_shop: Shop) -> None:
    """Both show the list's preview text, and the list's numbers stay as they are."""
    lists = {"shown": codes("SHOWN", 3)}
    open_shop.has("preview", "three", addresses(3), lists)
    before = open_shop.list_named("shown")
    attribute = ("--attribute", "first_name=Ada")
    preview = open_shop.coupons("message", "preview", "preview", *attribute)
    assert preview.out == "Subject: For Ada\n\nDear Ada, yours: shown_previewCoupon\n\n"
    html = open_shop.coupons("message", "preview", "preview", "--html", *attribute)
    assert "<p>Dear Ada, yours: shown_previewCoupon" in html.out
    open_shop.coupons("message", "test", "preview", "--to", "editor@example.org", *attribute)
    (test_mail,) = (mail for mail in open_shop.mails() if mail.recipient == "editor@example.org")
    assert test_mail.text == "Dear Ada, yours: shown_previewCoupon\n"
    assert test_mail.codes == []
    assert open_shop.list_named("shown") == before
    open_shop.send("preview", "three")
    assert open_shop.list_named("shown").sent == 3


def test_a_sendout_keeps_the_message_that_it_began_with(open_shop: Shop) -> None:
    """A version that is saved while a sendout is interrupted is for the next sendout."""
    open_shop.has("versions", "two", addresses(2), {"versions": codes("VERSION", 1)})
    interrupted = open_shop.send("versions", "two", code=4)
    open_shop.coupons(*open_shop.saving("versions", 'New words: {{ coupon("versions") }}\n'))
    open_shop.import_codes("versions", [f"MORE-0000{n}" for n in (1, 2, 3)])
    open_shop.resume(interrupted["id"])
    later = open_shop.send("versions", "two")
    assert all(mail.text.startswith("Dear Ada") for mail in open_shop.mails(interrupted["id"]))
    assert all(mail.text.startswith("New words") for mail in open_shop.mails(later["id"]))


def test_files_and_headers_go_along_byte_for_byte(open_shop: Shop) -> None:
    """An attachment, an image that the HTML shows and a header, in test mails as in every recipient's mail."""
    pdf, png = bytes(range(256)) * 40 + b"\r\n.\r\n", b"\x89PNG\r\n\x1a\n" + bytes(500)
    attached, shown = open_shop.file("Größe.pdf", pdf), open_shop.file("logo.png", png)
    open_shop.has("files", "files", addresses(3), {"files": codes("FILES", 3)})
    html = open_shop.file("files.html", '<img src="cid:logo.png"> {{ coupon("files") }}')
    along = ("--attach", attached, "--inline", shown, "--header", "X-Campaign: spring")
    saved = open_shop.coupons("message", "save", "files", "--subject", "Files", "--html", html, *along).out
    assert "with Größe.pdf, logo.png" in saved
    preview = open_shop.coupons("message", "preview", "files").out
    assert "X-Campaign: spring\nFiles: Größe.pdf, logo.png\n" in preview
    open_shop.coupons("message", "test", "files", "--to", "editor@example.org")
    sendout = open_shop.send("files", "files")
    mails = open_shop.mails(sendout["id"])
    assert {mail.recipient for mail in mails} == {*addresses(3)}
    assert sorted(code for mail in mails for code in mail.codes) == codes("FILES", 3)
    for mail in emails(open_shop, [*addresses(3), "editor@example.org"]):
        assert mail["X-Campaign"] == "spring"
        assert {part.get_filename(): part.get_payload(decode=True) for part in mail.walk() if part.get_filename()} == {
            "Größe.pdf": pdf,
            "logo.png": png,
        }


def test_a_file_that_cannot_go_along_is_refused_when_it_is_saved(open_shop: Shop) -> None:
    """What is no image cannot be shown, and our own headers are ours: one line each, and nothing is saved."""
    text = open_shop.file("plain.txt", "Hello")
    save = ("message", "save", "wrong", "--subject", "Hello", "--text", text)
    assert "only images" in open_shop.coupons(*save, "--inline", text, code=1).err
    assert "From" in open_shop.coupons(*save, "--header", "From: x@example.org", code=1).err
    open_shop.coupons(*save, "--header", "nonsense", code=2)
    assert "wrong" not in open_shop.coupons("message", "ls").out


def emails(shop: Shop, recipients: list[str]) -> list[EmailMessage]:
    """The last mail to each, as a mail program reads it."""
    found = {mail.rcpt_to[0]: mail.email for mail in shop.ledger()}
    return [found[recipient] for recipient in recipients]
