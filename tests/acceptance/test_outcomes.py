"""Codes of mails that the relay does not accept. The recipient's address tells the sink how to reply."""

from typing import Any
from uuid import UUID

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, NOT_ALL_MAILED
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually


def test_a_refused_recipient_returns_the_code(open_shop: Shop) -> None:
    """After a 550 for one of three recipients the third code is available again, and `show` has the relay's reply."""
    audience = [*addresses(2), "refuse.me@example.org"]
    open_shop.has("refused", "with-refused", audience, {"refused": codes("REFUSED", 3)})
    sendout = open_shop.send("refused", "with-refused", code=NOT_ALL_MAILED)
    assert (sendout["state"], sendout["sent"], sendout["refused"]) == ("finished", 2, 1)
    assert_own_codes(open_shop.mails(sendout["id"]), addresses(2), codes("REFUSED", 3))
    now = open_shop.get_list("refused")
    assert (now.available, now.sent) == (1, 2)
    shown = open_shop.coupons("show", sendout["id"]).out
    assert "refuse.me@example.org" in shown
    assert "550 5.1.1 <refuse.me@example.org>: no such mailbox" in shown
    (of_refused,) = open_shop.coupons("who", "--email", "refuse.me@example.org", "--json").json
    assert of_refused["codes"] == {}


def test_a_returned_code_goes_to_another_recipient(open_shop: Shop) -> None:
    """Two sendouts share one code. The first recipient is refused, and the second recipient gets the code."""
    open_shop.has("second-hand", "refusing", ["refuse.it@example.org"], {"second-hand": codes("RETURNED", 1)})
    open_shop.coupons(*open_shop.importing_group("taking", ["grace@example.org"]))
    assert open_shop.send("second-hand", "refusing", code=FAILED)["refused"] == 1
    sendout = open_shop.send("second-hand", "taking")
    assert_own_codes(open_shop.mails(sendout["id"]), ["grace@example.org"], codes("RETURNED", 1))
    (owner,) = open_shop.coupons("who", "--code", "RETURNED-00001", "--json").json
    assert (owner["address"], owner["state"]) == ("grace@example.org", "sent")


def test_a_deferred_mail_keeps_its_code(open_shop: Shop) -> None:
    """After a 451 for one of three recipients the sendout continues, and the third code stays assigned."""
    audience = [*addresses(2), "defer.me@example.org"]
    open_shop.has("deferred", "with-deferred", audience, {"deferred": codes("DEFERRED", 4)})
    sendout = open_shop.begin_sending("deferred", "with-deferred")
    shown = eventually(lambda: shown_with_deferred(open_shop, sendout, 1), "all but one mail to have an outcome")
    assert shown["sendout"]["state"] == "sending"
    (problem,) = shown["problems"]
    assert (problem["state"], problem["attempts"]) == ("deferred", 1)
    assert problem["reply"] == "451 4.7.1 <defer.me@example.org>: try again later"
    mails = open_shop.mails(sendout)
    assert_own_codes(mails, addresses(2), codes("DEFERRED", 3))
    (held,) = open_shop.coupons("who", "--email", "defer.me@example.org", "--json").json
    assert {held["codes"]["deferred"], *(mail.codes[0] for mail in mails)} == {*codes("DEFERRED", 3)}
    now = open_shop.get_list("deferred")
    assert (now.available, now.assigned, now.sent) == (1, 1, 2)


def test_a_mail_without_a_reply_is_uncertain_and_keeps_its_code(open_shop: Shop) -> None:
    """The relay accepts the mail and dies before its reply: the mail is not sent again, the code stays assigned."""
    audience = [*addresses(2), "drop.me@example.org"]
    open_shop.has("uncertain", "with-uncertain", audience, {"uncertain": codes("UNCERTAIN", 4)})
    sendout = open_shop.send("uncertain", "with-uncertain", code=NOT_ALL_MAILED)
    assert (sendout["state"], sendout["sent"], sendout["uncertain"]) == ("finished", 2, 1)
    assert_own_codes(open_shop.mails(sendout["id"]), audience, codes("UNCERTAIN", 3))
    assert "drop.me@example.org" in open_shop.coupons("show", sendout["id"]).out
    now = open_shop.get_list("uncertain")
    assert (now.available, now.assigned, now.sent) == (1, 1, 2)


def test_a_relay_that_refuses_the_sender_pauses_the_sendout(open_shop: Shop) -> None:
    """No recipient is refused. The sendout pauses and shows the codes of the relay's reply."""
    open_shop.has("our-fault", "three", addresses(3), {"our-fault": codes("FAULT", 3)})
    sender = ("--from", "badsender.shop@example.org")
    open_shop.coupons(*open_shop.saving("our-fault", '{{ coupon("our-fault") }}\n'), *sender)
    sendout = open_shop.send("our-fault", "three", code=1)
    assert (sendout["state"], sendout["sent"], sendout["refused"], sendout["remaining"]) == ("paused", 0, 0, 3)
    assert sendout["reason"] == "the relay refuses the sender: 550 5.7.1"
    assert open_shop.mails(sendout["id"]) == []


def shown_with_deferred(shop: Shop, sendout: UUID, number: int) -> Any:
    """Return the output of `show` once this number of mails is deferred and no mail is pending."""
    states = list(shop.deliveries(sendout).values())
    if {"pending", "sending"} & {*states} or len([each for each in states if each == "deferred"]) != number:
        return None
    return shop.coupons("show", sendout, "--json").json
