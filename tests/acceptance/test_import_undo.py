"""Safe replacements, undo and retry on the command line, with a real worker."""

from tests.acceptance.processes import FAILED, REJECTED_LINES, WRONG_USAGE
from tests.acceptance.system import Shop, codes
from tests.acceptance.test_imports import in_list

BAD = "".join(f"www.example.org/{number}\n" for number in range(3))


def test_an_import_is_undone_with_numbers(open_shop: Shop) -> None:
    """The report and `show` have the numbers of codes that were taken back and that remain. An undo can be undone."""
    open_shop.coupons("list", "create", "undone")
    before = codes("UNDONE", 3)
    open_shop.import_codes("undone", before)
    done = open_shop.import_codes("undone", [before[0], "UNDONE-NEW"], "--mode", "replace", "--json").json
    result = open_shop.coupons("import", "undo", done["id"][:8], "--wait")
    first, *details = result.out.splitlines()
    assert first.endswith(f"finished: undo of import {done['id']}: 1 of 1 taken back, 2 of 2 restored")
    assert [line.strip() for line in details if "notice" in line] == [
        "notice: took back 1 of 1 code that the import added",
        "notice: restored 2 of 2 codes that the import removed",
        "notice: returned to the import before: 1 code that the import kept",
    ]
    assert in_list(open_shop, "undone") == before
    undo = first.split()[1]
    assert open_shop.coupons("show", undo).out.startswith(first)
    assert f"undone by import {undo}" in open_shop.coupons("show", done["id"]).out
    again = open_shop.coupons("import", "undo", undo, "--wait", "--json").json
    assert [again[name] for name in ("mode", "added", "removed")] == ["undo", 1, 2]
    assert in_list(open_shop, "undone") == [before[0], "UNDONE-NEW"]


def test_codes_that_cannot_be_restored_have_a_reason(open_shop: Shop) -> None:
    """The exit code is 3, and the CSV has the codes with their reasons."""
    for name in ("lost", "lost-elsewhere"):
        open_shop.coupons("list", "create", name)
    open_shop.import_codes("lost", ["LOST-1", "LOST-2"])
    done = open_shop.import_codes("lost", ["LOST-1", "LOST-2"], "--mode", "delete", "--json").json
    open_shop.import_codes("lost-elsewhere", ["LOST-2"])
    result = open_shop.coupons("import", "undo", done["id"], "--wait", code=REJECTED_LINES)
    assert "0 of 0 taken back, 1 of 2 restored" in result.out
    assert "not restored: 1 already in list lost-elsewhere" in result.err
    undo = result.out.split()[1]
    assert '2;"LOST-2";"already in list lost-elsewhere"' in open_shop.coupons("show", undo, "--rejected").out


def test_a_terminal_is_asked_before_an_undo(open_shop: Shop) -> None:
    """The question has the numbers."""
    open_shop.coupons("list", "create", "asked")
    done = open_shop.import_codes("asked", codes("ASKED", 4), "--json").json
    numbers = "take back: at most 4 codes that it added to asked, if still available\n"
    assert open_shop.coupons("import", "undo", done["id"], "--dry-run").out == numbers
    result = open_shop.on_terminal("import", "undo", done["id"], typed="n\n")
    assert result.code == FAILED
    assert "take back: at most 4 codes that it added to asked, if still available" in result.err
    assert f"Undo import {done['id']}? [y/N]" in result.err
    assert open_shop.get_list("asked").available == 4


def test_a_failed_import_is_retried_without_another_upload(open_shop: Shop) -> None:
    """The new import has the changed encoding and the other options of the failed one."""
    open_shop.coupons("list", "create", "again-1252")
    text = "".join(f"{number};1\n" for number in range(200_000)) + "BÄR-A1;1\n"  # the first MiB is in UTF-8
    file = open_shop.file("again.csv", f"Gutschein;Wert\n{text}".encode("cp1252"))
    arguments = ("import", file, "--list", "again-1252", "--column", "Gutschein")
    failed = open_shop.coupons(*arguments).out.strip()
    open_shop.becomes("failed", failed)
    shown = open_shop.coupons("show", failed).out
    assert "cp1252" in shown
    assert shown.count(open_shop.coupons("show", failed, "--json").json["reason"]) == 1
    assert f"coupons import retry {failed}" in shown
    retried = open_shop.coupons("import", "retry", failed, "--encoding", "cp1252", "--wait", "--json", "--yes")
    assert (retried.json["state"], retried.json["lines"]) == ("finished", 200_001)
    assert "BÄR-A1" in in_list(open_shop, "again-1252")
    imported = f"was imported by import {retried.json['id']}"
    assert imported in open_shop.coupons("import", "retry", failed, code=FAILED).err
    assert "coupons import retry" not in open_shop.coupons("show", failed).out


def test_a_script_sees_the_numbers_of_a_replacement_and_is_stopped(open_shop: Shop) -> None:
    """Without a terminal nothing is asked, but a file that is mostly rejected needs --yes. Nothing changes before."""
    open_shop.coupons("list", "create", "safe")
    open_shop.import_codes("safe", codes("SAFE", 2))
    open_shop.coupons("list", "create", "safe-elsewhere")
    elsewhere = codes("ELSEWHERE", 3)
    open_shop.import_codes("safe-elsewhere", elsewhere)
    file = open_shop.file("mostly-bad.txt", "\n".join(["SAFE-90001", *elsewhere]))
    arguments = ("import", file, "--list", "safe", "--mode", "replace", "--wait")
    refused = open_shop.coupons(*arguments, code=FAILED)
    assert "4 lines: 1 new, 3 already in list safe-elsewhere" in refused.err
    assert "to be removed: 2 codes not in the file" in refused.err
    assert "3 of 4 lines would be rejected, more than half (3 already in list safe-elsewhere): nothing" in refused.err
    assert in_list(open_shop, "safe") == codes("SAFE", 2)
    assert open_shop.coupons(*arguments, "--yes", code=REJECTED_LINES).out
    assert in_list(open_shop, "safe") == ["SAFE-90001"]


def test_a_replacement_leaves_nothing_only_if_it_is_allowed(open_shop: Shop) -> None:
    """--yes does not allow it."""
    open_shop.coupons("list", "create", "emptied")
    open_shop.import_codes("emptied", codes("EMPTIED", 2))
    arguments = ("import", open_shop.file("bad.txt", BAD), "--list", "emptied", "--mode", "replace", "--wait")
    for options in ((), ("--yes",)):
        refused = open_shop.coupons(*arguments, *options, code=FAILED).err
        assert ("--allow-empty" in refused, "3 looks like a URL" in refused) == (True, True)
        assert "already processed" not in refused
        assert open_shop.get_list("emptied").available == 2
    open_shop.coupons(*arguments, "--yes", "--allow-empty", code=REJECTED_LINES)
    assert open_shop.get_list("emptied").available == 0


def test_one_command_imports_codes_and_recipients(open_shop: Shop) -> None:
    """`coupons import --group` does what `coupons group import` does; exactly one target is required."""
    people = open_shop.file("undo-people.csv", "email,first_name\nada@example.org,Ada\n")
    done = open_shop.coupons("import", people, "--group", "one-way", "--wait", "--json").json
    assert (done["group"], done["added"]) == ("one-way", 1)
    again = open_shop.coupons("group", "import", people, "--group", "one-way", "--wait", "--json").json
    assert (again["existing"], again["same_as"]) == (1, done["id"])
    for target in ((), ("--list", "a", "--group", "b")):
        assert "exactly one of --list and --group" in open_shop.coupons("import", people, *target, code=WRONG_USAGE).err
    undone = open_shop.coupons("import", "undo", done["id"], "--wait", "--json", code=REJECTED_LINES).json
    reason = "not undone: 1 removed since, or updated by a later import (undo that first)"
    assert (undone["removed"], undone["notices"][1:]) == (0, [reason])


def test_an_option_without_effect_is_refused(open_shop: Shop) -> None:
    """One line names what it needs. Nothing is uploaded."""
    file = open_shop.file("idle.csv", "email\nada@example.org\n")
    for arguments, reason in (
        (("--list", "idle", "--columns", "a"), "--columns needs --group"),
        (("--group", "idle", "--allow-lookalikes"), "--allow-lookalikes needs --list"),
        (("--list", "idle", "--allow-empty"), "--allow-empty needs --mode replace"),
        (("--list", "idle", "--skip-lines", "5000"), "5000 is not in the range 0<=x<=1000"),
    ):
        assert reason in open_shop.coupons("import", file, *arguments, code=WRONG_USAGE).err
    for name in ("empty.txt", "empty.xlsx"):
        empty = open_shop.file(name, "")
        assert "is empty" in open_shop.coupons("import", empty, "--group", "idle", code=FAILED).err
    forced = open_shop.coupons("import", file, "--group", "idle", "--force-encoding", code=FAILED)
    assert "force_encoding needs an encoding" in forced.err


def test_a_file_may_be_named_like_a_command(open_shop: Shop) -> None:
    """`./undo` is a file, `undo` is the command."""
    open_shop.coupons("list", "create", "named")
    open_shop.file("undo", "NAMED-1\n")
    result = open_shop.coupons("import", "./undo", "--list", "named", "--wait", "--json")
    assert result.json["added"] == 1
    assert "Missing argument 'ID'" in open_shop.coupons("import", "undo", code=WRONG_USAGE).err
