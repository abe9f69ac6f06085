"""`coupons group show|delete` and `coupons message show|delete`."""

from uuid import uuid4

from tests.acceptance.processes import FAILED, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes


def test_a_failed_group_import_leaves_no_empty_group(open_shop: Shop) -> None:
    """The group of a file without addresses does not exist afterwards, and the import can still be shown."""
    missing = uuid4()
    file = open_shop.file("colours.csv", "colour;size\nred;1\n")
    open_shop.coupons("group", "import", file, "--group", "wrong", code=FAILED)
    import_id = open_shop.coupons("group", "import", f"file:///{missing}.csv", "--group", "wrong").out.strip()
    open_shop.becomes("failed", import_id)
    assert open_shop.coupons("group", "ls").out.find("wrong") == -1
    assert f"import {import_id} into wrong failed" in open_shop.coupons("show", import_id).out
    assert open_shop.coupons("group", "show", "wrong", code=FAILED).err == "coupons: there is no group wrong\n"


def test_a_group_is_shown_and_deleted(open_shop: Shop) -> None:
    """`show` has its attributes and imports. `delete` asks, refuses a group in use, and keeps its sendouts."""
    open_shop.has("hello", "few", addresses(3), {"ten": codes("TEN", 4)})
    shown = open_shop.coupons("group", "show", "few").out
    assert shown.startswith("group few: 3 recipients, created ")
    assert "  attributes: first_name\nIMPORT " in shown
    group, import_ = open_shop.coupons("group", "show", "few", "--json").json
    assert (group["recipients"], import_["added"]) == (3, 3)
    scheduled = open_shop.begin_sending("hello", "few", "--start-at", "2090-01-01T09:00Z")
    refused = open_shop.coupons("group", "delete", "few", "--yes", code=FAILED)
    assert refused.err == f"coupons: group few is used by sendout {scheduled}, which is not finished\n"
    open_shop.coupons("cancel", scheduled)
    open_shop.becomes("cancelled", scheduled)
    open_shop.becomes_all("cancelled", scheduled)
    sent = open_shop.send("hello", "few")["id"]
    asked = open_shop.on_terminal("group", "delete", "few", typed="n\n")
    assert ("Delete group few and its 3 recipients?" in asked.err, asked.code) == (True, FAILED)
    for kind, name in (("group", "few"), ("message", "hello")):
        unasked = open_shop.coupons(kind, "delete", name, code=WRONG_USAGE)
        assert "stdin is not a terminal: pass --yes" in unasked.err
    assert open_shop.coupons("group", "delete", "few", "--yes").out == "group few deleted, with 3 recipients\n"
    assert open_shop.coupons("show", sent, "--json").json["sendout"]["group"] == "few"


def test_a_message_is_shown_and_deleted(open_shop: Shop) -> None:
    """`show` has its headers and parts with their placeholders. `delete` keeps the sendouts that have mailed it."""
    open_shop.has("voucher", "some", addresses(2), {"five": codes("FIVE", 3)})
    shown = open_shop.coupons("message", "show", "voucher").out
    assert shown.startswith("message voucher, version 1, saved ")
    assert "\nSubject: For {{ first_name }}\nLists: five\nAttributes: first_name\n" in shown
    assert '\n--- text ---\nDear {{ first_name }}, yours: {{ coupon("five") }}\n\n--- html ---\n<p>' in shown
    assert open_shop.coupons("message", "show", "voucher", "--json").json["lists"] == ["five"]
    interrupted = open_shop.begin_sending("voucher", "some", "--start-at", "2090-01-01T09:00Z")
    refused = open_shop.coupons("message", "delete", "voucher", "--yes", code=FAILED)
    assert refused.err == f"coupons: message voucher is needed by sendout {interrupted}, which is not finished\n"
    open_shop.coupons("cancel", interrupted)
    open_shop.becomes_all("cancelled", interrupted)
    sent = open_shop.send("voucher", "some")["id"]
    assert open_shop.coupons("message", "delete", "voucher", "--yes").out == "message voucher deleted, with 1 version\n"
    assert open_shop.coupons("message", "show", "voucher", code=FAILED).err == "coupons: there is no message voucher\n"
    assert open_shop.coupons("show", sent, "--json").json["sendout"]["message"] == "voucher"
    lost = open_shop.coupons("send", "--message", "voucher", "--group", "some", code=FAILED)
    assert lost.err == "coupons: there is no message voucher\n"
