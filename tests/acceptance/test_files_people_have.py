"""Files that people have, through the real command line: a dry run and an import report the same, and are right.

`files_of_codes` and `files_of_recipients` have the files and their right results. The unit tests of the readers try all
of them, in pieces of several sizes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from coupons.database import Connection, connect
from coupons.files.rejections import parse_reason
from coupons.store import groups, lists
from tests.acceptance.processes import DONE, FAILED, REJECTED_LINES, Result
from tests.acceptance.system import Shop
from tests.factories import add_list
from tests.files_of_codes import REDUCED
from tests.files_of_recipients import SHARED
from tests.files_people_have import Case
from tests.spreadsheets import make_zip, xlsx

COUNTS = ("lines", "blank", "existing", "removed", "rejected", "read_as", "notices")
"""The fields that both reports have. New lines are `new` in a dry run and `added` in an import."""
LIST, GROUP = "people-have", "people"


TABLE = b"<html xmlns:x='urn:x'><table><tr><td>code</td></tr><tr><td>AAAA-1111</td></tr></table></html>"
RICH_TEXT = rb"{\rtf1\ansi\deff0 {\fonttbl {\f0 Courier;}}" + b"\n\\f0\\fs20 AAAA-1111\\par\nBBBB-2222\\par\n}"
CONTAINERS = (
    Case(
        "codes.xlsx",
        xlsx({"codes": [["Spring campaign"], ["Codice sconto", "value"], ["00123", 5], ["AAAA-1111", 5]]}),
        ("--sheet", "codes"),
        accepted=("00123", "AAAA-1111"),
    ),
    Case("html-as.xls", TABLE, refused="web page"),
    Case("rich-text.txt", RICH_TEXT, refused="RTF"),
    Case("pdf-2.pdf", b"%PDF-2.0\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", refused="PDF"),
    Case(
        "zip-with-ds-store.zip",
        make_zip({"export/codes.csv": "code\nAAAA-1\nBBBB-2\n", "export/.DS_Store": "\0\0\0\1Bud1"}),
        accepted=("AAAA-1", "BBBB-2"),
    ),
)
"""Files that are recognized before their text is read, or are unpacked."""
JUERGEN = "E-Mail;Vorname\nada@example.org;Jürgen\n".encode()
OTHER_RECIPIENTS = (
    Case(
        "customers.xlsx",
        xlsx({"x": [["E-Mail", "Vorname"], ["ada@example.org", "Ada"], ["bob@example.org", "Bob\nB."]]}),
        accepted=("ada@example.org", "bob@example.org"),
        notice="line breaks and tabs became blanks in 1 value",
    ),
    Case("utf8-read-as-cp1252.csv", JUERGEN, ("--encoding", "cp1252"), refused="valid UTF-8"),
    Case(
        "utf8-forced-to-cp1252.csv", JUERGEN, ("--encoding", "cp1252", "--force-encoding"),
        accepted=("ada@example.org",),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Reports:
    """What `coupons import --json` printed and wrote to the file of rejected lines."""

    result: Result
    rejected: bytes

    @property
    def counts(self) -> dict[str, Any]:
        read = self.result.json
        return {"new": read.get("new", read.get("added")), **{name: read[name] for name in COUNTS}}


def change(shop: Shop, action: Callable[[Connection], Awaitable[object]]) -> None:
    """Change the database without a command."""

    async def run() -> None:
        async with connect(shop.services.database_url) as connection:
            await action(connection)

    asyncio.run(run())


def begin_import(
    shop: Shop, file: Path, target: tuple[str, str], options: tuple[str, ...], *mode: str
) -> Callable[[], Reports]:
    """Start an import, and return a function that waits for its reports."""
    output = file.with_name(f"{file.name}-rejected.csv")
    output.unlink(missing_ok=True)
    end = shop.begin("import", file, *target, *options, *mode, "--json", "--rejected", output)

    def reports() -> Reports:
        result = end()
        return Reports(result, output.read_bytes() if output.exists() else b"")

    return reports


def do_import(shop: Shop, file: Path, target: tuple[str, str], options: tuple[str, ...], *mode: str) -> Reports:
    return begin_import(shop, file, target, options, *mode)()


def do_dry_runs(shop: Shop, cases: Sequence[Case], target: tuple[str, str]) -> dict[str, Reports]:
    """The reports of dry runs by the name of the case, two at a time. All of them together change nothing."""
    before = shop.contents()
    found: dict[str, Reports] = {}
    for pair in zip_longest(cases[::2], cases[1::2]):
        started = [
            (case.name, begin_import(shop, write(shop, case), target, case.options, "--dry-run"))
            for case in pair
            if case
        ]
        found |= {name: end() for name, end in started}
    assert shop.contents() == before
    assert len(found) == len(cases)
    return found


def write(shop: Shop, case: Case) -> Path:
    return shop.file(case.name if "." in case.name else f"{case.name}.csv", case.content)


def check(shop: Shop, case: Case, dry: Reports, target: tuple[str, str], content: str) -> None:
    """Check both reports, and that the query for the content returns the accepted codes or addresses."""
    before = shop.contents() if case.refused is not None else {}
    run = do_import(shop, write(shop, case), target, case.options, "--wait")
    if case.refused is not None:
        assert dry.result.code == run.result.code == FAILED
        assert dry.result.err == run.result.err
        assert case.refused in run.result.err
        assert run.result.err.count("\n") == 1
        assert (run.result.out, run.rejected) == ("", b"")
        assert shop.contents() == before
        return
    expected = REJECTED_LINES if case.rejected else DONE
    assert (dry.result.code, run.result.code) == (expected, expected), (dry.result, run.result)
    assert dry.counts == run.counts
    assert dry.rejected == run.rejected
    assert sorted(row["value"] for row in shop.rows(content)) == sorted(case.accepted)
    assert rejections(shop, run.result.json["id"]) == case.rejected
    assert case.notice is None or any(case.notice in notice for notice in run.result.json["notices"])


def rejections(shop: Shop, import_id: str) -> dict[int, str]:
    """The value of the reason of each rejected line."""
    rows = shop.rows(
        "SELECT line, reason FROM import_rejection, unnest(lines, reasons) AS r (line, reason) WHERE import_id = $1",
        import_id,
    )
    return {row["line"]: parse_reason(row["reason"])[0].value for row in rows}


@pytest.fixture
def remove_list(open_shop: Shop) -> Iterator[None]:
    """Remove the list with its codes after the test: a code exists once in the database."""
    yield
    change(open_shop, delete_list)


async def delete_list(connection: Connection) -> None:
    await lists.archive(connection, LIST)
    await lists.delete(connection, LIST)


@pytest.fixture
def remove_group(open_shop: Shop) -> Iterator[None]:
    """Remove the group, if there is one, after the test."""
    yield

    async def remove(connection: Connection) -> None:
        if await groups.find(connection, GROUP):
            await groups.delete(connection, GROUP)

    change(open_shop, remove)


OF_CODES, OF_RECIPIENTS = (*REDUCED, *CONTAINERS), (*SHARED, *OTHER_RECIPIENTS)


@pytest.fixture(scope="module")
def dry_runs_of_codes(open_shop: Shop) -> dict[str, Reports]:
    change(open_shop, lambda connection: add_list(connection, LIST))
    found = do_dry_runs(open_shop, OF_CODES, ("--list", LIST))
    change(open_shop, delete_list)
    return found


@pytest.fixture(scope="module")
def dry_runs_of_recipients(open_shop: Shop) -> dict[str, Reports]:
    return do_dry_runs(open_shop, OF_RECIPIENTS, ("--group", GROUP))


@pytest.mark.usefixtures("remove_list")
@pytest.mark.parametrize("case", OF_CODES, ids=lambda case: case.name)
def test_a_file_of_codes(dry_runs_of_codes: dict[str, Reports], open_shop: Shop, case: Case) -> None:
    """The right codes are in the list, or nothing is changed; the dry run reports the same."""
    change(open_shop, lambda connection: add_list(connection, LIST))
    check(open_shop, case, dry_runs_of_codes[case.name], ("--list", LIST), "SELECT code AS value FROM coupon")


@pytest.mark.usefixtures("remove_group")
@pytest.mark.parametrize("case", OF_RECIPIENTS, ids=lambda case: case.name)
def test_a_file_of_recipients(dry_runs_of_recipients: dict[str, Reports], open_shop: Shop, case: Case) -> None:
    """The right recipients are in the group, or nothing is changed; the dry run reports the same."""
    dry = dry_runs_of_recipients[case.name]
    check(open_shop, case, dry, ("--group", GROUP), "SELECT address AS value FROM recipient")


@pytest.mark.usefixtures("remove_list")
def test_codes_that_differ_in_case_belong_to_a_case_sensitive_list(open_shop: Shop) -> None:
    """All three spellings of a code are accepted there."""
    change(open_shop, lambda connection: add_list(connection, LIST, case_sensitive=True))
    spellings = ("abcd-1234", "ABCD-1234", "Abcd-1234")
    case = Case("case.txt", "\n".join(spellings).encode(), accepted=spellings)
    (dry,) = do_dry_runs(open_shop, [case], ("--list", LIST)).values()
    check(open_shop, case, dry, ("--list", LIST), "SELECT code AS value FROM coupon")


@pytest.mark.usefixtures("remove_list")
def test_files_that_replace(open_shop: Shop) -> None:
    """The numbers of the dry run are those of the import. Nothing is removed for a file without valid lines."""
    before = ["A-1111", "B-2222", "C-3333"]
    change(open_shop, lambda connection: add_list(connection, LIST, before))
    into, replace = ("--list", LIST), ("--mode", "replace")

    def refused(file: Path, reason: str, *options: str) -> None:
        assert reason in open_shop.coupons("import", file, *into, *replace, *options, "--wait", code=FAILED).err
        assert {row["code"] for row in open_shop.rows("SELECT code FROM coupon")} == {*before}

    refused(open_shop.file("replace-header-only.csv", b"code\r\n"), "--allow-empty", "--yes")
    mostly_bad = open_shop.file("replace-mostly-bad.txt", "D-4444\nE\u00a05\nF\u00a06\nG\u00a07\n".encode())
    refused(mostly_bad, "3 of 4 lines would be rejected")
    file = open_shop.file("replace-with.txt", b"A-1111\nD-4444\n")
    dry = do_import(open_shop, file, into, replace, "--dry-run")
    run = do_import(open_shop, file, into, replace, "--wait", "--yes")
    assert dry.counts == run.counts
    assert [run.counts[name] for name in ("new", "existing", "removed", "rejected")] == [1, 1, 2, 0]
    found = open_shop.rows("SELECT code FROM coupon")
    assert {row["code"] for row in found} == {"A-1111", "D-4444"}
