"""Imports of codes into a list: accepted and rejected lines, and the modes."""

import csv
import gzip
import io
from hashlib import sha256
from pathlib import Path

from tests.acceptance.processes import REJECTED_LINES
from tests.acceptance.system import Shop, codes
from tests.spreadsheets import Table, xlsx


def in_list(shop: Shop, name: str) -> list[str]:
    found = shop.rows(
        "SELECT code FROM coupon JOIN coupon_list l ON l.id = list_id WHERE name = $1 ORDER BY code", name
    )
    return [row["code"] for row in found]


def test_every_rejected_line_is_explained(open_shop: Shop) -> None:
    """The exit code is 3. A CSV with the number, value and reason of each line can be fixed and imported again."""
    lines = ["GOOD-1", "", "https://shop.example.org/10", "GOOD-1", "1.2E+11", "X" * 201, "{{ code }}", "GOOD-2"]
    open_shop.coupons("list", "create", "rejects")
    result = open_shop.import_codes("rejects", lines, "--json", code=REJECTED_LINES)
    counts = [result.json[name] for name in ("state", "lines", "added", "blank", "rejected")]
    assert counts == ["finished", 8, 2, 1, 5]
    table = open_shop.coupons("show", result.json["id"], "--rejected").out.removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(table), delimiter=";"))
    assert [row["line"] for row in rows] == ["3", "4", "5", "6", "7"]
    assert [row["code"] for row in rows[:3]] == ["https://shop.example.org/10", "GOOD-1", "'1.2E+11"]
    assert rows[0]["reason"] == "looks like a URL"
    assert "duplicate" in rows[1]["reason"]
    assert "spreadsheet" in rows[2]["reason"]
    assert "200" in rows[3]["reason"]
    assert "placeholder" in rows[4]["reason"]
    fixed = open_shop.file("fixed.csv", table.replace("'1.2E+11", "120000000000"))
    again = open_shop.coupons("import", fixed, "--list", "rejects", "--wait", "--json", code=REJECTED_LINES).json
    assert (again["added"], again["rejected"]) == (1, 4)
    assert in_list(open_shop, "rejects") == ["120000000000", "GOOD-1", "GOOD-2"]


def test_without_json_the_first_rejected_lines_are_on_stderr(open_shop: Shop) -> None:
    """The result and how the file was read are on stdout, the first rejected lines and where to find all on stderr."""
    open_shop.coupons("list", "create", "rejects-shown")
    lines = ["SHOWN-1", *["https://x.example.org"] * 7]
    result = open_shop.import_codes("rejects-shown", lines, "--no-header", code=REJECTED_LINES)
    assert [line.strip().partition(" as ")[0] for line in result.out.splitlines()[1:]] == ["read"]
    assert "1 added, 7 rejected" in result.out
    assert "line 2: looks like a URL" in result.err
    assert "--rejected" in result.err


def test_existing_and_sent_codes_are_not_added_again(open_shop: Shop) -> None:
    """A code that is in the list and a code that was sent are rejected for different reasons."""
    open_shop.has("known", "one", ["ada@example.org"], {"known": codes("KNOWN", 2)})
    open_shop.send("known", "one")
    result = open_shop.import_codes("known", codes("KNOWN", 3), "--json", code=REJECTED_LINES).json
    assert (result["added"], result["rejected"]) == (1, 2)
    table = open_shop.coupons("show", result["id"], "--rejected").out
    assert '1;"KNOWN-00001";"already sent"' in table
    assert '2;"KNOWN-00002";"already in the list"' in table


def test_a_dry_run_reports_the_counts_and_writes_nothing(open_shop: Shop) -> None:
    """The report counts rejected lines by reason before anything is changed."""
    lines = ["NEW-1", "OLD-1", "NEW-1", "", "www.example.org", "elsewhere-1"]
    open_shop.coupons("list", "create", "dry")
    open_shop.import_codes("dry", ["OLD-1"])
    open_shop.coupons("list", "create", "elsewhere")
    open_shop.import_codes("elsewhere", ["ELSEWHERE-1"])
    before = open_shop.contents()
    arguments = ("import", open_shop.file("dry.txt", "\n".join(lines)), "--list", "dry", "--dry-run")
    shown = open_shop.coupons(*arguments, code=REJECTED_LINES)
    counts = open_shop.coupons(*arguments, "--json", code=REJECTED_LINES).json
    assert shown.out == (
        "6 lines: 1 new, 1 duplicate in file, 1 already in the list, 1 blank, 1 already in list elsewhere, 1 invalid\n"
        f"read as {counts['read_as']}\n"
    )
    assert {reason: count for reason, count in counts.items() if count and reason != "read_as"} == {
        "lines": 6, "new": 1, "blank": 1, "rejected": 4, "url": 1, "duplicate": 1, "in_list": 1, "other_list": 1
    }  # fmt: skip
    assert open_shop.contents() == before


def test_removed_codes_are_counted_apart_from_the_lines_of_the_file(open_shop: Shop) -> None:
    """A replace removes codes that are not in the file: the dry run and the report count them in another line."""
    open_shop.coupons("list", "create", "apart")
    open_shop.import_codes("apart", codes("APART", 5))
    file = open_shop.file("apart.txt", "APART-00001\nAPART-NEW\nAPART-NEW\nwww.example.org\n")
    arguments = ("import", file, "--list", "apart", "--mode", "replace")
    shown = open_shop.coupons(*arguments, "--dry-run", code=REJECTED_LINES).out
    assert shown.splitlines()[:-1] == [
        "4 lines: 1 new, 1 unchanged, 1 duplicate in file, 1 invalid", "to be removed: 4 codes not in the file"
    ]  # fmt: skip
    counts = open_shop.coupons(*arguments, "--dry-run", "--json", code=REJECTED_LINES).json
    assert counts["lines"] == counts["blank"] + counts["new"] + counts["existing"] + counts["rejected"] == 4
    assert counts["removed"] == 4
    done = open_shop.coupons(*arguments, "--wait", code=REJECTED_LINES).out.splitlines()
    assert done[0].endswith("finished: 4 lines, 1 added, 1 unchanged, 2 rejected")
    assert done[1] == "  removed: 4 codes not in the file"
    deleted = open_shop.file("apart-delete.txt", "APART-00001\nAPART-00002\n")
    arguments = ("import", deleted, "--list", "apart", "--mode", "delete")
    shown = open_shop.coupons(*arguments, "--dry-run", code=REJECTED_LINES).out
    assert shown.splitlines()[0] == "2 lines: 0 new, 1 to be removed, 1 not in list"
    done = open_shop.coupons(*arguments, "--wait", code=REJECTED_LINES).out.splitlines()
    assert done[0].endswith("finished: 2 lines, 1 removed, 1 rejected")


def test_a_dry_run_of_an_archived_list_fails_like_the_import(open_shop: Shop) -> None:
    """No import into an archived list is accepted."""
    open_shop.coupons("list", "create", "stored-away")
    open_shop.coupons("list", "archive", "stored-away")
    arguments = ("import", open_shop.file("x.txt", "X"), "--list", "stored-away")
    for option in ("--dry-run", "--wait"):
        assert "list stored-away is archived" in open_shop.coupons(*arguments, option, code=1).err


def test_a_dry_run_and_the_import_give_the_same_report(open_shop: Shop, tmp_path: Path) -> None:
    """The CSV of rejected lines is identical, in every mode, compressed or not."""
    open_shop.coupons("list", "create", "report")
    open_shop.import_codes("report", ["REP-ELSEWHERE"])
    for mode in ("add", "replace", "delete"):
        old, new = codes(f"REP-{mode}-OLD", 3), codes(f"REP-{mode}-NEW", 50)
        lines = [*new, new[7].lower(), old[1], "", "www.example.org", "=1+1", old[1], "1.2E+11", "rep-elsewhere"]
        file = open_shop.file(f"report-{mode}.txt.gz", gzip.compress("\n".join(lines).encode()))
        open_shop.coupons("list", "create", f"report-{mode}")
        open_shop.import_codes(f"report-{mode}", old)
        arguments = ("import", file, "--list", f"report-{mode}", "--mode", mode, "--rejected")
        before, after = tmp_path / "before.csv", tmp_path / "after.csv"
        dry = open_shop.coupons(*arguments, before, "--dry-run", "--json", code=REJECTED_LINES).json
        done = open_shop.coupons(*arguments, after, "--wait", "--yes", "--json", code=REJECTED_LINES).json
        assert sha256(before.read_bytes()).hexdigest() == sha256(after.read_bytes()).hexdigest()
        assert open_shop.coupons("show", done["id"], "--rejected").out == after.read_bytes().decode()
        assert [dry[name] for name in ("lines", "new", "existing", "blank", "read_as", "notices")] == [
            done[name] for name in ("lines", "added", "existing", "blank", "read_as", "notices")
        ]


def test_a_repeated_file_is_reported_with_its_date(open_shop: Shop) -> None:
    """A file is recognized whatever its name is. The log of an import shows the detected format."""
    open_shop.coupons("list", "create", "same")
    first = open_shop.import_codes("same", codes("SAME", 3), "--json").json
    again = open_shop.coupons("import", open_shop.file("other.txt", "".join(f"{code}\n" for code in codes("SAME", 3))),
                              "--list", "same", "--wait", code=REJECTED_LINES)  # fmt: skip
    assert "the same file was imported on 20" in again.out
    assert f"({first['id']}): 0 new" in again.out
    shown = open_shop.coupons("show", first["id"]).out
    assert "reading codes-same.txt as txt, utf-8" in shown
    assert shown.rstrip().endswith("finished")


def test_a_host_that_is_not_allowed_fails_the_import(open_shop: Shop) -> None:
    """The error contains the setting that allows the host."""
    open_shop.coupons("list", "create", "far")
    result = open_shop.coupons(
        "import", "https://shop.example.org/codes.txt?token=secret", "--list", "far", "--wait", code=1
    )
    assert "COUPONS_IMPORT_HOSTS" in result.err
    assert "secret" not in result.err + open_shop.coupons("list", "show", "far").out


def test_replace_leaves_only_the_codes_of_the_file_available(open_shop: Shop) -> None:
    """The import adds new codes, keeps existing ones and removes the others. Sent codes are unchanged."""
    open_shop.has("replaced", "one", ["ada@example.org"], {"replaced": codes("REPLACED", 4)})
    open_shop.send("replaced", "one")
    file = ["REPLACED-00003", "REPLACING-00001", "REPLACING-00002"]
    result = open_shop.import_codes("replaced", file, "--mode", "replace", "--json").json
    assert [result[name] for name in ("added", "existing", "removed", "rejected")] == [2, 1, 2, 0]
    assert in_list(open_shop, "replaced") == [
        "REPLACED-00001", "REPLACED-00003", "REPLACING-00001", "REPLACING-00002"
    ]  # fmt: skip
    now = open_shop.get_list("replaced")
    assert (now.available, now.sent, now.total) == (3, 1, 4)


def test_delete_removes_available_codes_and_rejects_others(open_shop: Shop) -> None:
    """A code that was sent and a code that is not in the list are rejected."""
    open_shop.has("deleted", "one", ["ada@example.org"], {"deleted": codes("GONE", 4)})
    open_shop.send("deleted", "one")
    file = ["GONE-00001", "GONE-00002", "GONE-00009"]
    result = open_shop.import_codes("deleted", file, "--mode", "delete", "--yes", "--json", code=REJECTED_LINES).json
    assert (result["removed"], result["rejected"]) == (1, 2)
    table = open_shop.coupons("show", result["id"], "--rejected").out
    assert '1;"GONE-00001";"already sent"' in table
    assert '3;"GONE-00009";"not in the list"' in table
    assert in_list(open_shop, "deleted") == ["GONE-00001", "GONE-00003", "GONE-00004"]


def test_a_csv_file_is_read_by_column(open_shop: Shop) -> None:
    """Separator and header are detected. The column is given, or detected by its name."""
    shop_export = "Gutschein;Wert\nBÄR-1;10 €\nBÄR-2;10 €\n"
    open_shop.coupons("list", "create", "csv")
    found = open_shop.file("vouchers.csv", shop_export.encode("cp1252"))
    arguments = ("import", found, "--list", "csv", "--column", "Gutschein", "--encoding", "cp1252", "--wait", "--json")
    assert open_shop.coupons(*arguments).json["added"] == 2
    assert in_list(open_shop, "csv") == ["BÄR-1", "BÄR-2"]


def test_a_spreadsheet_is_imported_like_a_csv_file(open_shop: Shop) -> None:
    """The dry run and the import report the same lines, and an unknown sheet is refused before any upload."""
    open_shop.coupons("list", "create", "sheets")
    table: Table = [["code", "value"], ["00123", 5], ["00124", 5], [], [1234567890123456, 5]]
    file = open_shop.file("codes.xlsx", xlsx({"Notes": [["see the next sheet"]], "Codes": table}))
    refused = open_shop.coupons("import", file, "--list", "sheets", "--sheet", "Kodes", "--wait", code=1)
    assert refused.err.strip().endswith(
        "codes.xlsx has no sheet 'Kodes': the sheets are 1 'Notes', 2 'Codes' (--sheet)"
    )
    arguments = ("import", file, "--list", "sheets", "--sheet", "Codes", "--json")
    dry = open_shop.coupons(*arguments, "--dry-run", code=REJECTED_LINES).json
    run = open_shop.coupons(*arguments, "--wait", code=REJECTED_LINES).json
    assert (dry["lines"], dry["new"], dry["blank"], dry["excel"]) == (4, 2, 1, 1)
    assert (run["lines"], run["added"], run["blank"], run["rejected"]) == (4, 2, 1, 1)
    assert dry["read_as"] == run["read_as"]
    assert dry["read_as"].startswith("xlsx, sheet 'Codes', column 1, with a header")
    rejected = open_shop.coupons("show", run["id"], "--rejected").out.splitlines()[1]
    assert rejected.startswith('5;"1.23456789012346E+15')
    assert in_list(open_shop, "sheets") == ["00123", "00124"]
