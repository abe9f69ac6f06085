"""Hostile content of lists, groups and messages cannot change anything outside its field."""

import csv
import io
import re
import subprocess
from collections.abc import Sequence
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from uuid import UUID

from coupons.commands import Recipient, StartSendout
from sandbox.ledger import Mail
from tests.acceptance.mails import received
from tests.acceptance.processes import REJECTED_LINES, Worker
from tests.faults import injections
from tests.faults.lab import END_SECONDS, Lab, codes_of, size
from tests.faults.oracle import read
from tests.waiting import eventually

HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"}
RUNS_AS_FORMULA = re.compile(r"(^|[,;|\t])[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
MAX_LINE_OCTETS = 998  # RFC 5322 section 2.1.1


def to_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    written = io.StringIO()
    csv.writer(written, delimiter=";", quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return written.getvalue().encode()


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), delimiter=";"))


def assert_no_formula(path: Path) -> None:
    """Check that a spreadsheet evaluates no cell of this file, whatever separator it assumes."""
    for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), delimiter=";"):
        for cell in row:
            assert not RUNS_AS_FORMULA.search(cell), cell


def parse_strictly(mail: Mail) -> Message:
    """Parse a mail, which must have one recipient, exactly the expected headers and no bare CR, bare LF or NUL."""
    email = message_from_bytes(mail.data)
    assert sorted({*email.keys()} - {"Content-Transfer-Encoding"}) == sorted(HEADERS)
    assert len(email.keys()) == len({*email.keys()})
    assert [email["To"]] == [*mail.rcpt_to]
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", mail.data)
    assert max(map(len, mail.data.split(b"\r\n"))) <= MAX_LINE_OCTETS
    return email


def test_injected_content_does_not_change_mails(lab: Lab, tmp_path: Path) -> None:
    """Each mail has its headers, one recipient and its own code, whatever attributes, addresses and codes contain.

    Each rejected line is reported with a reason in a CSV file, and a spreadsheet evaluates no cell of that file.
    """
    arrives = dict.fromkeys(injections.ATTRIBUTES) | injections.CHANGED_ATTRIBUTES
    people = [[f"nasty{number}@example.org", text] for number, text in enumerate(arrives)]
    bad = [[f"bad{number}@example.org", text] for number, text in enumerate(injections.REFUSED_ATTRIBUTES.values())]
    bad += [
        [address, text] for address, text in zip(injections.REFUSED_ADDRESSES, injections.ATTRIBUTES * 2, strict=False)
    ]
    lab.has("nasty", "others", ["other@example.org"], {"nasty": []})
    group = lab.file("nasty.csv", to_csv(["email", "first_name"], people + bad))
    codes = [f"{injections.CODES[n % len(injections.CODES)]}.{n}" for n in range(len(people))]
    list_ = lab.file(
        "codes.csv", to_csv(["code", "note"], [[code, "x"] for code in [*codes, *injections.REFUSED_CODES]])
    )
    rejected_people, rejected_codes = tmp_path / "rejected-people.csv", tmp_path / "rejected-codes.csv"
    with lab.fleet(1):
        into = ("--group", "nasty", "--wait", "--rejected", rejected_people)
        lab.coupons("group", "import", group, *into, code=REJECTED_LINES)
        importing = ("import", list_, "--list", "nasty", "--wait", "--rejected", rejected_codes)
        lab.coupons(*importing, code=REJECTED_LINES)
        sendout = UUID(lab.send("nasty", "nasty")["id"])
    assert len(read_csv(rejected_people)) == len(bad)
    assert len(read_csv(rejected_codes)) == len(injections.REFUSED_CODES)
    assert all(row["reason"] for path in (rejected_people, rejected_codes) for row in read_csv(path))
    assert_no_formula(rejected_people)
    assert_no_formula(rejected_codes)
    owned = lab.rows(
        "SELECT address, code FROM delivery d JOIN coupon c "
        "ON (c.sendout_id, delivery_number) = (d.sendout_id, d.number) WHERE d.sendout_id = $1",
        sendout,
    )
    code_of = {row["address"]: row["code"] for row in owned}
    assert sorted(code_of.values()) == sorted(codes)
    mails = {mail.rcpt_to[0]: mail for mail in lab.ledger()}
    assert mails.keys() == code_of.keys() == {address for address, _ in people}
    for address, text in people:
        name = arrives[text] or text
        email = parse_strictly(mails[address])
        assert str(make_header(decode_header(email["Subject"]))) == f"For {name}"
        assert received(mails[address]).text == f"Dear {name}, yours: {code_of[address]}\n"
    lab.check("header, address and CSV injections", rounds=len(people) + len(bad) + len(injections.REFUSED_CODES))


# --- messages ------------------------------------------------------------------------------------------------------

PLACEHOLDERS = 5_000
"""The number of placeholders in the text and in its HTML version. With values of 1,000 characters the mail would have
10 MB; rejecting it takes 0.06 s.
"""
MAX_RSS_MB = 300
ENDLESS = "{% for a in range(999999999) %}{% for b in range(999999999) %}x{% endfor %}{% endfor %}"


def rss_mb(worker: Worker) -> float:
    return (
        int(subprocess.run(["ps", "-o", "rss=", "-p", str(worker.pid)], capture_output=True, check=True).stdout) / 1_024
    )


def assigned_codes(lab: Lab) -> dict[tuple[UUID, int], str]:
    rows = lab.rows("SELECT sendout_id, delivery_number, code FROM coupon WHERE sendout_id IS NOT NULL")
    return {(row["sendout_id"], row["delivery_number"]): row["code"] for row in rows}


def replies(lab: Lab, sendout: UUID) -> dict[str, str]:
    """The reply for each refused delivery, by address."""
    found = lab.rows("SELECT address, reply FROM delivery WHERE sendout_id = $1 AND state = 'refused'", sendout)
    return {row["address"]: row["reply"] for row in found}


def test_a_message_that_cannot_be_rendered_causes_no_wrong_mail(lab: Lab) -> None:
    """A missing attribute, 10 MB of output, an endless loop or a condition that is never met causes no wrong mail.

    The sendout or the delivery has the reason, and its codes are available again.
    The worker's memory stays bounded, and other sendouts continue.
    """
    count = size(short=200, long=800)
    names = ("lacking", "flood", "endless", "hidden", "fine")
    texts = {
        "flood": "{{ first_name }}\n" * PLACEHOLDERS + '{{ coupon("flood") }}',
        "hidden": '{% if first_name == "Eve" %}{{ coupon("hidden") }}{% endif %}\n',
    }
    people = {name: [f"{name}{number}@example.org" for number in range(count)] for name in names}
    for name in names:
        lab.has(name, name, people[name], {name: codes_of(name, count)}, text=texts.get(name, ""))
    nameless = lab.file("lacking.csv", "email\nnameless@example.org\n")
    with lab.fleet(1):
        lab.coupons("group", "import", nameless, "--group", "lacking", "--wait")
    lab.rows("UPDATE message SET text = $1 WHERE name = 'endless'", ENDLESS)
    flood = tuple(
        Recipient(email=address, attributes={"first_name": "x" * (1_000 if number < count // 2 else 1)})
        for number, address in enumerate(people["flood"])
    )
    commands = {name: StartSendout(message=name, group=name) for name in names}
    commands["flood"] = StartSendout(message="flood", recipients=flood)
    peak = 0.0
    ended = {"lacking": "failed", "flood": "finished", "endless": "failed", "hidden": "finished", "fine": "finished"}
    with lab.fleet(1) as fleet:
        lab.publish(*commands.values())

        def states() -> dict[str, str]:
            return {name: lab.state(command.id) for name, command in commands.items()}

        def all_ended() -> bool:
            nonlocal peak
            if states() == ended:
                return True
            peak = max(peak, rss_mb(fleet.workers[0]))
            return False

        eventually(all_ended, "all sendouts to end", within=END_SECONDS, every=0, seen=states)
    reasons = {
        name: lab.rows("SELECT reason FROM sendout WHERE id = $1", commands[name].id)[0]["reason"] for name in names
    }
    assert reasons["lacking"] == "1 recipient lacks first_name"
    assert reasons["endless"].startswith("message endless: ")
    assert '"for" is not supported' in reasons["endless"]
    assert replies(lab, commands["hidden"].id) == {}
    too_long = replies(lab, commands["flood"].id)
    assert {*too_long} == {*people["flood"][: count // 2]}
    assert {*too_long.values()} == {"the mail is longer than 1048576 characters"}
    free = {name: lab.get_list(name).available for name in names}
    assert free == {"lacking": count, "flood": count // 2, "endless": count, "hidden": count, "fine": 0}
    mailed = {copy.delivery: copy.codes for copy in read(lab.sink.ledger)}
    with_codes = {delivery: codes for delivery, codes in mailed.items() if delivery[0] != commands["hidden"].id}
    assert with_codes == {delivery: frozenset({code}) for delivery, code in assigned_codes(lab).items()}
    assert (len(with_codes), len(mailed)) == (count + count // 2, 2 * count + count // 2)
    assert peak < MAX_RSS_MB
    lab.check("messages that cannot be rendered", rounds=len(names))
