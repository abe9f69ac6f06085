"""Exact limits: just enough codes, one code too few, an empty group, one recipient in many spellings."""

from uuid import UUID

from coupons.commands import Recipient, StartSendout
from tests.acceptance.processes import INTERRUPTED, NOT_ALL_MAILED, REJECTED_LINES
from tests.faults.lab import Lab, codes_of
from tests.waiting import eventually

SPELLINGS = {
    "ada@xn--bcher-kva.example": [
        "ada@bücher.example",
        "  ADA@xn--bcher-kva.example",
        "ada@bu\u0308cher.Example\u00a0",
    ],
    "Grace@example.org": ["Grace@example.org", " grace@EXAMPLE.org ", "\tGRACE@example.org"],
    "jürgen@example.org": ["jürgen@example.org", "ju\u0308rgen@example.org", "JÜRGEN@Example.org"],
}
"""Spellings of three mailboxes, by the address to which the mail goes. The last mailbox needs SMTPUTF8, which the sink
does not offer.
"""
MAILED = {"ada@xn--bcher-kva.example", "Grace@example.org"}


def test_a_sendout_needs_every_code_and_a_recipient(lab: Lab) -> None:
    """A sendout with exactly enough codes uses up its list. With one code too few, it sends nothing until resumed.

    A sendout whose group is empty when the sendout is prepared fails with a reason and reserves no code.
    """
    with lab.worker("sendout", lease_seconds=1, heartbeat_seconds=0.5, failpoints="sendout.claimed=kill"):
        lab.has("left", "left", ["gone@example.org"], {"left": codes_of("left", 1)})
        left = lab.begin_sending("left", "left")
        eventually(lambda: lab.state(left) == "preparing", "the sendout to be claimed")
    with lab.worker("import"):
        lab.coupons(*lab.importing_group("left", ["gone@example.org"]), "--mode", "delete")
    people = [f"limit{number}@example.org" for number in range(20)]
    exact, short = codes_of("exact", 20), codes_of("short", 20)
    lab.has("exact", "exact", people, {"exact": exact})
    lab.has("short", "short", people, {"short": short[1:]})
    with lab.fleet(1):
        assert lab.send("exact", "exact")["sent"] == 20
        interrupted = lab.send("short", "short", code=INTERRUPTED)
        assert interrupted["lists"][0]["missing"] == 1
        lab.becomes("failed", left)
        assert lab.mail_count() == 20
        lab.import_codes("short", short[:1])
        assert lab.resume(interrupted["id"])["sent"] == 20
    assert [lab.get_list(name).available for name in ("exact", "short", "left")] == [0, 0, 1]
    assert lab.rows("SELECT reason FROM sendout WHERE id = $1", left) == [{"reason": "its group has no recipients"}]
    lab.check("exact fit, one code short, empty group", rounds=3)


def test_spellings_of_one_address_get_one_mail(lab: Lab) -> None:
    """All spellings of an address (case, blanks, IDNA, NFC) together get one mail and one code; a refusal frees it."""
    spellings = [each for spellings in SPELLINGS.values() for each in spellings]
    lab.has("spelt", "others", ["other@example.org"], {"spelt": codes_of("spelt", 6)})
    recipients = tuple(Recipient(email=each, attributes={"first_name": "Ada"}) for each in reversed(spellings))
    from_command = StartSendout(message="spelt", recipients=recipients)
    with lab.fleet(1):
        lab.coupons(*lab.importing_group("spelt", spellings), code=REJECTED_LINES)
        from_file = UUID(lab.send("spelt", "spelt", code=NOT_ALL_MAILED)["id"])
        lab.publish(from_command)
        lab.wait_finished(from_command.id)
    for sendout in (from_file, from_command.id):
        assert sorted(mail.recipient.lower() for mail in lab.mails(sendout)) == sorted(map(str.lower, MAILED))
        assert {address.lower() for address in lab.deliveries(sendout)} == {address.lower() for address in SPELLINGS}
    assert lab.deliveries(from_file) == {address: "sent" if address in MAILED else "refused" for address in SPELLINGS}
    assert lab.get_list("spelt").available == 2
    lab.check("one address in several spellings", rounds=len(spellings))
