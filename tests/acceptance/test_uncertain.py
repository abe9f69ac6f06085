"""Uncertain mails are resolved by an operator or by the policy, and keep their codes."""

import csv
import io
from collections import defaultdict
from typing import Any

import pytest

from tests.acceptance.mails import Received
from tests.acceptance.processes import FAILED, NOT_ALL_MAILED, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes

CUSTOMERS = addresses(30)
IMPATIENT: dict[str, Any] = {"lease_seconds": 1.5, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5, "batch_size": 15}


def by_recipient(mails: list[Received]) -> dict[str, list[Received]]:
    found = defaultdict(list)
    for mail in mails:
        found[mail.recipient].append(mail)
    return found


def test_an_operator_lists_and_resolves_uncertain_mails(slow_shop: Shop) -> None:
    """After a worker was killed, the operator accepts one mail and resends the others with the same ids and codes."""
    shop = slow_shop
    with shop.worker(**IMPATIENT) as first:
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": codes("SPRING", 30)})
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.mails_come(10)
        first.kill()
    with shop.worker(**IMPATIENT):
        shop.becomes("finished", sendout)
        assert f"coupons uncertain {sendout}" in shop.coupons("show", sendout).out
        uncertain = [each["address"] for each in shop.coupons("uncertain", sendout, "--json").json]
        assert uncertain
        table = csv.DictReader(io.StringIO(shop.coupons("uncertain", sendout, "--csv").out[1:]), delimiter=";")
        assert [row["address"] for row in table] == uncertain
        accepted, *others = uncertain
        assert ": 1 mail counted as sent" in shop.coupons("uncertain", sendout, "--accept", "--email", accepted).out
        before = by_recipient(shop.mails())
        assert all(len(copies) == 1 for copies in before.values())
        assert shop.coupons("uncertain", sendout, "--resend", "--json").json["mails"] == len(others)
        shop.becomes("finished", sendout)
    after = by_recipient(shop.mails())
    assert {address for address in CUSTOMERS if len(after[address]) > len(before[address])} == {*others}
    for copies in after.values():
        assert len({(mail.message_id, *mail.codes) for mail in copies}) <= 1
    assert set(shop.deliveries(sendout).values()) == {"sent"}


@pytest.mark.parametrize(("how", "copies"), [("resend", 2), ("accept", 1)])
def test_the_policy_resolves_uncertain_mails(shop: Shop, how: str, copies: int) -> None:
    """COUPONS_UNCERTAIN_POLICY resends a mail whose reply was lost, or counts it as sent."""
    audience = [*addresses(2), "droponce.me@example.org"]
    with shop.worker(uncertain_policy=how, sweep_seconds=0.5):
        shop.has("spring-voucher", "customers", audience, {"spring-10": codes("SPRING", 3)})
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.becomes_all("sent", sendout)
        shop.becomes("finished", sendout)
    dropped = [mail for mail in shop.mails(sendout) if mail.recipient == "droponce.me@example.org"]
    assert len(dropped) == copies
    assert len({(mail.message_id, *mail.codes) for mail in dropped}) == 1
    assert len(shop.mails()) == 2 + copies


def test_every_reply_of_the_relay_is_shown(shop: Shop) -> None:
    """`show --replies` and `who --email` show the earlier replies too, not only the last one."""
    with shop.worker(uncertain_policy="resend", sweep_seconds=0.5):
        shop.has("spring", "two", ["droponce.it@example.org", "ada@example.org"], {"spring": codes("SPRING", 2)})
        sendout = shop.begin_sending("spring", "two")
        shop.becomes_all("sent", sendout)
    replies = csv.DictReader(io.StringIO(shop.coupons("show", sendout, "--replies").out[1:]), delimiter=";")
    shown = [(row["address"], row["attempt"], row["outcome"]) for row in replies]
    assert shown == [("droponce.it@example.org", str(n), what) for n, what in ((1, "uncertain"), (2, "sent"))]
    (mail,) = shop.coupons("who", "--email", "droponce.it@example.org", "--json").json
    assert [each["outcome"] for each in mail["answers"]] == ["uncertain", "sent"]
    assert "2. sent: 250" in shop.coupons("who", "--email", "droponce.it@example.org").out


def test_a_terminal_asks_before_mails_are_sent_again(open_shop: Shop) -> None:
    """On a terminal no mail is sent again without a confirmation. A script is not asked."""
    open_shop.has("asked", "asked", ["drop.me@example.org"], {"asked": codes("ASKED", 1)})
    sendout = open_shop.send("asked", "asked", code=NOT_ALL_MAILED)["id"]
    open_shop.coupons("uncertain", sendout, "--resend", "--accept", code=WRONG_USAGE)
    result = open_shop.on_terminal("uncertain", sendout, "--resend", typed="n\n")
    assert (result.code, "Aborted" in result.err) == (FAILED, True)
    assert open_shop.deliveries(sendout) == {"drop.me@example.org": "uncertain"}
    open_shop.coupons("uncertain", sendout, "--accept")
    open_shop.coupons("uncertain", sendout, "--accept", "--email", "drop.me@example.org", code=FAILED)
    assert "no uncertain mails" in open_shop.coupons("uncertain", sendout).err
