"""Messages, their codes and recipients, and previews and test mails, which never use a code."""

from email.message import EmailMessage

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.system import Shop, addresses, codes


def test_a_mail_contains_one_code_of_each_list_in_its_message(open_shop: Shop) -> None:
    """A message with three lists puts three codes into every mail, and no code is in two mails."""
    lists = {"red-1": codes("RED", 20), "green-2": codes("GREEN", 20), "blue-3": codes("BLUE", 20)}
    open_shop.has("three-lists", "twenty", addresses(20), lists)
    sendout = open_shop.send("three-lists", "twenty")
    assert_own_codes(open_shop.mails(sendout["id"]), addresses(20), *lists.values())


def test_a_list_used_twice_prints_the_same_code_twice(open_shop: Shop) -> None:
    """A recipient has one code per list, wherever the message prints it."""
    text = 'Code {{ coupon("twice") }}, again {{ coupon("TWICE") }}\n'
    open_shop.has("twice", "ten", addresses(10), {"twice": codes("TWICE", 10)}, text=text)
    sendout = open_shop.send("twice", "ten")
    mails = open_shop.mails(sendout["id"])
    assert_own_codes(mails, addresses(10), codes("TWICE", 10))
    assert all(mail.text == f"Code {mail.codes[0]}, again {mail.codes[0]}\n" for mail in mails)


def test_a_duplicate_address_gets_one_mail(open_shop: Shop) -> None:
    """Addresses that differ only in case or spaces are one recipient, also across files and within a command."""
    open_shop.has("once", "first", ["ada@example.org", "Grace@example.org"], {"once": codes("ONCE", 3)})
    again = open_shop.importing_group(
        "first", ["ADA@example.org", " ada@Example.org ", "new@example.org", "NEW@example.org"]
    )
    result = open_shop.coupons(*again, "--json", code=3).json
    assert (result["added"], result["existing"], result["rejected"]) == (1, 1, 2)
    sendout = open_shop.send("once", "first")
    assert sendout["recipients"] == 3
    mails = open_shop.mails(sendout["id"])
    assert_own_codes(mails, ["ada@example.org", "Grace@example.org", "new@example.org"], codes("ONCE", 3))


def test_recipients_can_be_given_by_address(open_shop: Shop) -> None:
    """`send --to` mails to the given addresses. Two spellings of one address are the same recipient."""
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


def test_a_condition_tests_the_recipients_code(open_shop: Shop) -> None:
    """If codes run out, `has_coupon` is false for recipients who get the alternative text."""
    text = '{% if has_coupon("some") %}Redeem {{ coupon("some") }}{% else %}No luck: {{ coupon("some") }}{% endif %}\n'
    open_shop.has(
        "condition", "five", addresses(5), {"some": codes("SOME", 2)}, text=text, alternative_text="next time"
    )
    sendout = open_shop.send("condition", "five")
    texts = sorted(mail.text for mail in open_shop.mails(sendout["id"]))
    assert texts == ["No luck: next time\n"] * 3 + ["Redeem SOME-00001\n", "Redeem SOME-00002\n"]


def test_previews_and_test_mails_never_use_a_code(open_shop: Shop) -> None:
    """A preview and a test mail show the list's preview text, and the list's numbers of codes do not change."""
    lists = {"shown": codes("SHOWN", 3)}
    open_shop.has("preview", "three", addresses(3), lists)
    before = open_shop.get_list("shown")
    attribute = ("--attribute", "first_name=Ada")
    preview = open_shop.coupons("message", "preview", "preview", *attribute)
    assert preview.out == "Subject: For Ada\n\nDear Ada, yours: shown_previewCoupon\n\n"
    html = open_shop.coupons("message", "preview", "preview", "--html", *attribute)
    assert "<p>Dear Ada, yours: shown_previewCoupon" in html.out
    open_shop.coupons("message", "test", "preview", "--to", "editor@example.org", *attribute)
    (test_mail,) = (mail for mail in open_shop.mails() if mail.recipient == "editor@example.org")
    assert test_mail.text == "Dear Ada, yours: shown_previewCoupon\n"
    assert test_mail.codes == []
    assert open_shop.get_list("shown") == before
    open_shop.send("preview", "three")
    assert open_shop.get_list("shown").sent == 3


def test_a_test_mail_is_sent_to_each_address(open_shop: Shop) -> None:
    """`message test --to a --to b` mails both addresses once. An invalid or refused address is reported."""
    open_shop.has("each", "each", addresses(1), {"each": codes("EACH", 1)})
    to = ("--to", "first@example.org", "--to", "second@example.org", "--to", "FIRST@example.org")
    printed = open_shop.coupons("message", "test", "each", *to).out
    assert printed.count("test mail of each sent to ") == 2
    mailed = [mail.recipient for mail in open_shop.mails()]
    assert (mailed.count("first@example.org"), mailed.count("second@example.org")) == (1, 1)
    invalid = open_shop.coupons("message", "test", "each", "--to", "third@example.org", "--to", "fourth", code=1)
    assert 'has no "@"' in invalid.err
    refused = open_shop.coupons(
        "message", "test", "each", "--to", "refuse.me@example.org", "--to", "fifth@example.org", code=1
    )
    assert "to refuse.me@example.org not sent: " in refused.err
    mailed = [mail.recipient for mail in open_shop.mails()]
    assert (mailed.count("third@example.org"), mailed.count("fifth@example.org")) == (0, 1)


def test_a_test_mail_has_the_same_envelope_sender_as_a_sendout(open_shop: Shop) -> None:
    """COUPONS_BOUNCE_ADDRESS applies to test mails too, so that a bounce identifies its mail."""
    open_shop.has("bounce", "bounce", addresses(1), {"bounce": codes("BOUNCE", 1)}, text="Hello\n")
    open_shop.coupons(
        "message", "test", "bounce", "--to", "tester@example.org", bounce_address="bounces+{id}@example.org"
    )
    (found,) = (mail for mail in open_shop.ledger() if mail.rcpt_to == ("tester@example.org",))
    message_id = found.email["Message-ID"].strip("<>").partition("@")[0]
    assert found.mail_from == f"bounces+{message_id}@example.org"


def test_a_message_can_be_saved_twice_at_the_same_moment(open_shop: Shop) -> None:
    """Each command creates its own version, and reports it."""
    file = open_shop.file("racing.txt", "Hello\n")
    save = ("message", "save", "racing", "--subject", "Hello", "--text", file)
    printed = [end().out for end in [open_shop.begin(*save) for _ in range(4)]]
    assert sorted(printed) == [f"message racing saved, version {number}, no codes\n" for number in (1, 2, 3, 4)]


def test_a_sendout_keeps_its_version_of_the_message(open_shop: Shop) -> None:
    """A version that is saved while a sendout is interrupted applies only to later sendouts."""
    open_shop.has("versions", "two", addresses(2), {"versions": codes("VERSION", 1)})
    interrupted = open_shop.send("versions", "two", code=4)
    open_shop.coupons(*open_shop.saving("versions", 'New words: {{ coupon("versions") }}\n'))
    open_shop.import_codes("versions", [f"MORE-0000{n}" for n in (1, 2, 3)])
    open_shop.resume(interrupted["id"])
    later = open_shop.send("versions", "two")
    assert all(mail.text.startswith("Dear Ada") for mail in open_shop.mails(interrupted["id"]))
    assert all(mail.text.startswith("New words") for mail in open_shop.mails(later["id"]))


def test_files_and_headers_arrive_byte_for_byte(open_shop: Shop) -> None:
    """An attachment, an inline image and a header are unchanged in test mails and in every recipient's mail."""
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


def test_unsuitable_files_and_headers_are_rejected_when_saved(open_shop: Shop) -> None:
    """An inline text file and a reserved header each cause an error of one line, and nothing is saved."""
    text = open_shop.file("plain.txt", "Hello")
    save = ("message", "save", "wrong", "--subject", "Hello", "--text", text)
    assert "only images" in open_shop.coupons(*save, "--inline", text, code=1).err
    assert "From" in open_shop.coupons(*save, "--header", "From: x@example.org", code=1).err
    open_shop.coupons(*save, "--header", "nonsense", code=2)
    assert "wrong" not in open_shop.coupons("message", "ls").out


def test_save_says_what_was_meant(open_shop: Shop) -> None:
    """Errors name `{% raw %}` and the attribute of a column; a placeholder of another system is a warning."""
    open_shop.has("meant", "meant", addresses(1), {"meant": []})
    css = open_shop.file("css.html", "<style>\na{#fff}\n</style>")
    name = open_shop.file("name.txt", "Dear {{ First Name }},\n")
    capital = open_shop.file("capital.txt", "Dear {{ First_Name }},\n")
    foreign = open_shop.file("foreign.txt", "Dear *|FNAME|*,\n")
    save = ("message", "save", "meant", "--subject", "Hello")
    assert "between {% raw %} and {% endraw %}" in open_shop.coupons(*save, "--html", css, code=1).err
    assert "; write {{ first_name }}\n" in open_shop.coupons(*save, "--text", name, code=1).err
    assert "; instead of First_Name write first_name\n" in open_shop.coupons(*save, "--text", capital, code=1).err
    warning = 'coupons: warning: text, line 1: "*|FNAME|*" is mailed as it is; for an attribute write {{ fname }}\n'
    saved = open_shop.coupons(*save, "--text", foreign)
    assert (saved.out, saved.err) == ("message meant saved, version 2, no codes\n", warning)
    assert open_shop.coupons("message", "show", "meant").err == warning
    assert len(open_shop.coupons("message", "show", "meant", "--json").json["warnings"]) == 1


def test_names_are_mailed_as_people_have_them(open_shop: Shop) -> None:
    """A no-break space, an ideographic space, joiners and marks of direction arrive unchanged: in sender and body."""
    names = ["Jean\u00a0Paul", "山田\u3000太郎", "نر\u200cگس", "क्\u200dष", "\u200fשרה"]
    rows = "".join(f"{address};{name}\n" for address, name in zip(addresses(5), names, strict=True))
    file = open_shop.file("names.csv", f"email;first_name\n{rows}")
    open_shop.coupons("group", "import", file, "--group", "names", "--wait")
    text = open_shop.file("names.txt", "Dear {{ first_name }},\n")
    for name in names:
        sender = ("--from", f"{name} <shop@example.org>", "--header", f"X-Name: {name}")
        open_shop.coupons("message", "save", "names", "--subject", "For {{ first_name }}", "--text", text, *sender)
    open_shop.send("names", "names")
    for name, mail in zip(names, emails(open_shop, addresses(5)), strict=True):
        assert (mail["Subject"], mail.get_content()) == (f"For {name}", f"Dear {name},\r\n")
        assert (mail["From"].addresses[0].display_name, mail["X-Name"]) == (names[-1], names[-1])


def emails(shop: Shop, recipients: list[str]) -> list[EmailMessage]:
    """Return the last mail to each recipient, as a mail program reads it."""
    found = {mail.rcpt_to[0]: mail.email for mail in shop.ledger()}
    return [found[recipient] for recipient in recipients]
