"""`--dry-run` of an import: this process reads and checks the file, and writes nothing."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO

import click

from coupons.states import ImportMode, TargetKind
from producers.cli.confirm import confirm, is_asked
from producers.cli.files import can_be_read_again, source_of, write_rejected
from producers.cli.output import amount, counted, describe_kept, describe_reading, emit_json
from producers.cli.progress import bar
from producers.cli.runtime import REJECTED_LINES, database, on_abort, require_activated, settings

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.files.format import FileFormat
    from coupons.import_engine import DryRunReport
    from coupons.store.imports import Target


async def dry_run_import(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat",
    confirmed: bool, rejected: TextIO | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Report what would happen to each line, and return the exit code."""
    async with _dry_run(file, list_=list_, group=group, mode=mode, format_=format_, confirmed=confirmed) as found:
        if rejected:
            await write_rejected(rejected, found.rejected, found.columns)
    if json_output:
        emit_json({**_counts(found), "read_as": found.read_as, "notices": found.notices})
    else:
        click.echo("\n".join(_in_words(found, mode, TargetKind.LIST if list_ else TargetKind.GROUP)))
    return REJECTED_LINES if found.counts.reasons else None


async def review_import(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat",
    allow_empty: bool,
) -> bool:  # fmt: skip
    """Show what the import would do, and ask an operator at a terminal. Return whether an operator has confirmed it.

    The numbers may be unknown: a pipe cannot be read twice, a URL may be open to workers only, and a login may lack the
    right to read codes. Then nothing is confirmed, and the worker checks the numbers.

    Raises click.Abort, and Conflict if the worker would refuse the import.
    """
    from coupons.import_engine import check_report, is_mostly_rejected

    numbers, report = await _in_numbers(file, list_=list_, group=group, mode=mode, format_=format_)
    for line in numbers:
        click.echo(line, err=True)
    is_operator = is_asked(yes=False)
    if report:
        check_report(report, mode, confirmed=is_operator, allow_empty=allow_empty)
    if is_operator:
        suspicion = ""
        if report and is_mostly_rejected(report):
            rejected, lines = report.counts.rejected, report.lines - report.blank
            suspicion = f"{amount(rejected)} of {counted(lines, 'line')} would be rejected. "
        target = f"list {list_}" if list_ else f"group {group}"
        verb = "Replace the available codes of" if list_ else "Replace the recipients of"
        question = f"{verb} {target}?" if mode == ImportMode.REPLACE else f"Remove these lines from {target}?"
        confirm(f"{suspicion}{question}")
    return is_operator and report is not None


async def _in_numbers(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat"
) -> "tuple[list[str], DryRunReport | None]":
    """Return the numbers in words, and the report unless it is unknown."""
    from asyncpg import InsufficientPrivilegeError

    from coupons.errors import UserError

    if not isinstance(file, str) and not can_be_read_again(file):
        return [_unknown("the input is not a file")], None
    try:
        async with _dry_run(file, list_=list_, group=group, mode=mode, format_=format_) as found:
            words = [*_in_words(found, mode, TargetKind.LIST if list_ else TargetKind.GROUP)]
    except InsufficientPrivilegeError:
        return [_unknown("this login may not read codes")], None
    except UserError as error:
        if isinstance(file, str):
            return [_unknown(str(error))], None
        raise
    if not isinstance(file, str):
        os.lseek(file.fileno(), 0, os.SEEK_SET)  # the file object has not read the file, so its seek() may do nothing
    return words, found


def _unknown(why: str) -> str:
    return f"the numbers are unknown: {why}; a worker checks them before anything is changed"


@asynccontextmanager
async def _dry_run(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat",
    confirmed: bool = False,
) -> "AsyncIterator[DryRunReport]":  # fmt: skip
    from coupons import import_engine
    from coupons.sources import SourceLimits, open_source

    rules = SourceLimits.from_settings(settings())
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(database())
        target = await _target(connection, list_, group)
        stack.enter_context(on_abort("nothing was imported"))
        show = stack.enter_context(bar("reading"))
        source = (
            await stack.enter_async_context(open_source(file, rules))
            if isinstance(file, str)
            else source_of(file, show)
        )
        report = import_engine.dry_run(
            connection, target, source, rules,
            mode=mode, file_format=format_, max_lines=settings().import_max_lines, confirmed=confirmed,
        )  # fmt: skip
        yield await stack.enter_async_context(report)


async def _target(connection: "Connection", list_: str | None, group: str | None) -> "Target":
    """Return the list or group. A group that does not exist yet counts as empty, because an import creates it."""
    from coupons.store import groups, imports
    from coupons.store.imports import Target

    if list_ is not None:
        require_activated(f"codes of list {list_} cannot be imported")
        return await imports.get_list_target(connection, list_)
    known = await groups.find(connection, group or "")
    return Target(known.id if known else 0, group or "", TargetKind.GROUP)


def _counts(found: "DryRunReport") -> dict[str, int]:
    """Return the numbers of lines: `lines` = `blank` + `new` + `existing` + `rejected` (+ `removed` in mode delete).

    In mode replace, `removed` is the number of codes or recipients that the file does not have.
    """
    from coupons.files.rejections import Reason, parse_reason

    counts = found.counts
    reasons = {reason.value: 0 for reason in Reason}
    for stored, lines in counts.reasons.items():
        reasons[parse_reason(stored)[0]] += lines
    return {
        "lines": found.lines, "blank": found.blank, "new": counts.added, "existing": counts.existing,
        "removed": counts.removed, "rejected": counts.rejected, "kept_reserved": counts.kept_reserved,
        "kept_assigned": counts.kept_assigned, **reasons,
    }  # fmt: skip


KNOWN_REASONS = {
    "duplicate": "duplicate in file", "case": "duplicate in file except for case",
    "in_list": "already in the list", "sent": "already sent",
    "assigned": "assigned to recipients", "reserved": "reserved for sendouts", "not_in_list": "not in list",
}  # fmt: skip
"""These reasons are shown. Other rejected lines are invalid, or their code is in another list."""


def _in_words(found: "DryRunReport", mode: ImportMode, kind: TargetKind) -> Iterator[str]:
    """Yield the numbers of lines, those of codes or recipients that are not in the file, and how the file was read."""
    counts = _counts(found)
    other_lists = _other_lists(found)
    invalid = counts["rejected"] - sum(counts[reason] for reason in KNOWN_REASONS) - counts["other_list"]
    parts = [
        (counts["new"], "new"),
        (counts["existing"], "updated" if kind is TargetKind.GROUP else "unchanged"),
        (counts["removed"] if mode == ImportMode.DELETE else 0, "to be removed"),
        *((counts[reason], word) for reason, word in KNOWN_REASONS.items()),
        (counts["blank"], "blank"),
        *other_lists,
        (invalid, "invalid"),
    ]
    shown = [f"{amount(lines)} {word}" for lines, word in parts if lines or word == "new"]
    yield f"{counted(counts['lines'], 'line')}: {', '.join(shown)}"
    if mode == ImportMode.REPLACE:
        what = "recipient" if kind is TargetKind.GROUP else "code"
        yield f"to be removed: {counted(counts['removed'], what)} not in the file"
        yield from describe_kept(counts["kept_reserved"], counts["kept_assigned"])
    yield from describe_reading(found.read_as, found.notices)


def _other_lists(found: "DryRunReport") -> list[tuple[int, str]]:
    from coupons.files.rejections import Reason, describe, parse_reason

    parsed = [(*parse_reason(stored), lines) for stored, lines in sorted(found.counts.reasons.items())]
    return [(lines, describe(reason, name)) for reason, name, lines in parsed if reason is Reason.OTHER_LIST]
