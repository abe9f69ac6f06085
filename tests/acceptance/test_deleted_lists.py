"""A deleted list on the command line."""

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, INTERRUPTED, REJECTED_LINES, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes, letter

CUSTOMERS = addresses(3)
SPRING, SUMMER = codes("SPRING", 5), codes("SUMMER", 3)


def test_a_list_whose_codes_were_sent_can_be_deleted(shop: Shop) -> None:
    """Every list rejects the sent codes of a deleted list. A message that uses the list must be saved again."""
    shop.has("letter", "customers", CUSTOMERS, {"spring-10": SPRING})
    with shop.worker():
        sendout = shop.send("letter", "customers")
        (gone, *_) = (mail.codes[0] for mail in shop.mails())
        shop.coupons("list", "archive", "spring-10")
        kept = "The hashes of 3 sent codes are kept, so no list accepts these codes again."
        asked = shop.on_terminal("list", "delete", "spring-10", typed="n\n").err
        assert f"{kept} Delete list spring-10 and its 5 codes?".lower() in " ".join(asked.split()).lower()
        assert "pass --yes" in shop.coupons("list", "delete", "spring-10", code=WRONG_USAGE).err
        assert kept in shop.coupons("list", "delete", "spring-10", "--yes").out

        assert "spring-10" not in shop.coupons("list", "ls", "--archived").out
        assert "list spring-10 (deleted): 3 needed" in shop.coupons("show", sendout["id"]).out
        assert "spring-10: (deleted)" in shop.coupons("who", "--email", CUSTOMERS[0]).out
        assert "(deleted)" in shop.coupons("who", "--code", gone).out
        refused = shop.coupons("send", "--message", "letter", "--group", "customers", code=FAILED).err
        assert "list spring-10 was deleted: save message letter again" in refused

        shop.coupons("list", "create", "spring-10")
        result = shop.import_codes("spring-10", [gone, *SUMMER], "--json", code=REJECTED_LINES).json
        assert (result["added"], result["rejected"]) == (3, 1)
        shop.coupons(*shop.saving("letter", letter("spring-10")))
        again = shop.send("letter", "customers")
        assert_own_codes(shop.mails(again["id"]), CUSTOMERS, SUMMER)
    shop.verify()


def test_an_interrupted_sendout_of_an_archived_list_names_the_remedy(open_shop: Shop) -> None:
    """`show`, `resume` and the refused import name `list restore`. The import and the resume then succeed."""
    open_shop.has("gone", "gone", addresses(3), {"gone": codes("GONE", 2)})
    sendout = open_shop.send("gone", "gone", code=INTERRUPTED)["id"]
    open_shop.coupons("list", "archive", "gone")
    remedy = "3 needed, 2 available, 1 missing; run `coupons list restore gone` to import them\n"
    assert remedy in open_shop.coupons("show", sendout).out
    assert remedy in open_shop.coupons("resume", sendout, "--wait", code=INTERRUPTED).out
    refused = open_shop.coupons("import", open_shop.file("gone.txt", "GONE-X\n"), "--list", "gone", code=FAILED).err
    assert refused == "coupons: list gone is archived: run `coupons list restore gone`\n"
    open_shop.coupons("list", "restore", "gone")
    open_shop.import_codes("gone", ["GONE-X"])
    assert open_shop.resume(sendout)["sent"] == 3


def test_archive_names_the_sendouts_that_the_list_still_serves(open_shop: Shop) -> None:
    """An interrupted sendout of an archived list is resumed with its codes; a new sendout is refused."""
    open_shop.has("served", "served", addresses(3), {"served": codes("SERVED", 2)})
    sendout = open_shop.send("served", "served", code=INTERRUPTED)["id"]
    open_shop.import_codes("served", codes("MORE", 3))
    assert open_shop.coupons("list", "archive", "served").out == (
        f"list served archived\n  still serves sendout {sendout} of message served, which is interrupted\n"
    )
    assert "is already archived" in open_shop.coupons("list", "archive", "served", code=FAILED).err
    refused = open_shop.coupons("send", "--message", "served", "--group", "served", code=FAILED)
    assert refused.err == "coupons: message served: list served is archived: run `coupons list restore served`\n"
    assert open_shop.resume(sendout)["sent"] == 3
