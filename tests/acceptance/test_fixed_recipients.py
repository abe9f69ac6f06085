"""Rejected recipients: their rows are reported as a CSV, fixed, and imported again."""

import json
from hashlib import sha256
from pathlib import Path

from tests.acceptance.processes import REJECTED_LINES
from tests.acceptance.system import Shop

PEOPLE = (
    "First Name;E-Mail;Phone\n"
    "Ada;ada@example.org;+49 1\n"
    "Zoë;zoe(at)example.org;+49 2\n"
    "Bob;;=3\n"
    "Eve\x07;eve@example.org;4\n"
    f"{'x' * 1_200};long@example.org;5\n"
    "Cut;cut@example.org\n"
)


def people_of(shop: Shop, group: str) -> dict[str, dict[str, str]]:
    query = "SELECT address, r.attributes FROM recipient r JOIN recipient_group g ON g.id = group_id WHERE name = $1"
    return {row["address"]: json.loads(row["attributes"]) for row in shop.rows(query, group)}


def test_a_fixed_recipient_has_all_attributes(open_shop: Shop, tmp_path: Path) -> None:
    """Unfixed rows are rejected again. The CSV's columns line and reason do not become attributes of recipients."""
    rejected, again = tmp_path / "rejected.csv", tmp_path / "again.csv"
    into = ("--group", "fixed", "--wait", "--rejected")
    open_shop.coupons("group", "import", open_shop.file("m.csv", PEOPLE), *into, rejected, code=REJECTED_LINES)
    report = rejected.read_text(encoding="utf-8-sig")
    rejected.write_text(report.replace("zoe(at)example.org", "zoe@example.org"), encoding="utf-8-sig")
    open_shop.coupons("group", "import", rejected, *into, again, code=REJECTED_LINES)
    assert people_of(open_shop, "fixed") == {
        "ada@example.org": {"first_name": "Ada", "phone": "+49 1"},
        "zoe@example.org": {"first_name": "Zoë", "phone": "+49 2"},
        "long@example.org": {"first_name": "x" * 1_000, "phone": "5"},
        "cut@example.org": {"first_name": "Cut", "phone": ""},
    }
    (group,) = [each for each in open_shop.coupons("group", "ls", "--json").json if each["name"] == "fixed"]
    assert group["attributes"] == ["first_name", "phone"]
    before, after = report.splitlines(), again.read_text(encoding="utf-8-sig").splitlines()
    assert before[0] == after[0] == "line;email;first_name;phone;reason"
    assert [line.partition(";")[2] for line in after[1:]] == [line.partition(";")[2] for line in before[2:]]
    assert len(after) == len(before) - 1 == 3


def test_a_dry_run_an_import_and_show_give_the_same_report(open_shop: Shop, tmp_path: Path) -> None:
    """The three reports are equal byte for byte."""
    before, after = tmp_path / "before.csv", tmp_path / "after.csv"
    file = open_shop.file("same.csv", f"{PEOPLE}Eva;ADA@example.org;6\n")
    arguments = ("group", "import", file, "--group", "same", "--json", "--rejected", before, "--dry-run")
    open_shop.coupons(*arguments, code=REJECTED_LINES)
    done = open_shop.coupons(*arguments[:-2], after, "--wait", code=REJECTED_LINES).json
    assert sha256(before.read_bytes()).hexdigest() == sha256(after.read_bytes()).hexdigest()
    assert open_shop.coupons("show", done["id"], "--rejected").out == after.read_bytes().decode()
    assert '8;"ADA@example.org";"Eva";"\'6";"duplicate of an earlier line: ADA@example.org"' in after.read_text()
