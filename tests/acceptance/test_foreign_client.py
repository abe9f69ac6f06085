"""Commands published by a program that uses only the contract: Debian's `amqp-publish`."""

from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.system import Shop, addresses, codes

CUSTOMERS = addresses(1_000)
SPRING = codes("SPRING", 1_000)

pytestmark = pytest.mark.usefixtures("amqp_tools")


def command(type_: str, **content: Any) -> dict[str, Any]:
    return {"type": type_, "id": str(uuid4()), **content}


def test_another_client_can_run_the_main_workflow(shop: Shop) -> None:
    """The client imports codes, sends, imports the missing codes and resumes: 1,000 mails have 1,000 codes."""
    first = command("import", list="spring-10", mode="add", codes=SPRING[:600])
    second = command("import", list="spring-10", mode="add", codes=SPRING[600:])
    sendout = command("sendout", message="spring-voucher", group="customers")
    resume = command("resume", sendout=sendout["id"])
    with shop.worker():
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": []})
        shop.amqp_publish("import", first)
        shop.becomes("finished", first["id"])
        shop.amqp_publish("sendout", sendout)
        shop.becomes("interrupted", sendout["id"])
        assert shop.coupons("show", sendout["id"], "--json").json["sendout"]["lists"][0]["missing"] == 400
        shop.amqp_publish("import", second)
        shop.becomes("finished", second["id"])
        assert shop.mails() == []
        shop.amqp_publish("resume", resume)
        shop.becomes("finished", sendout["id"])
        assert_own_codes(shop.mails(sendout["id"]), CUSTOMERS, SPRING)
        assert len(shop.mails()) == 1_000
    shop.verify()
    assert shop.dead() == []


def test_a_command_can_contain_its_recipients(shop: Shop) -> None:
    """A command with the most recipients that one may contain is published twice. Each recipient gets one mail."""
    recipients = [{"email": address, "attributes": {"first_name": f"Zoë{n}"}} for n, address in enumerate(CUSTOMERS)]
    sendout = command("sendout", message="spring-voucher", recipients=recipients)
    with shop.worker():
        shop.has("spring-voucher", "others", ["other@example.org"], {"spring-10": SPRING})
        shop.amqp_publish("sendout", sendout)
        shop.amqp_publish("sendout", sendout)
        shop.becomes("finished", sendout["id"])
        mails = shop.mails()
        assert_own_codes(mails, CUSTOMERS, SPRING)
        greetings = {mail.recipient: (mail.subject, mail.text.partition(",")[0]) for mail in mails}
        assert greetings == {address: (f"For Zoë{n}", f"Dear Zoë{n}") for n, address in enumerate(CUSTOMERS)}
    assert shop.dead() == []
