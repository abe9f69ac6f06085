"""`--dry-run` of an import: this process reads and checks the file, and writes nothing."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO

import click

from coupons.states import ImportMode, TargetKind
from producers.cli.confirm import confirm
from producers.cli.files import can_be_read_again, source_of, write_rejected
from producers.cli.output import amount, counted, emit_json
from producers.cli.progress import bar
from producers.cli.runtime import REJECTED_LINES, database, on_abort, settings

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.files.format import FileFormat
    from coupons.import_engine import DryRunReport
    from coupons.store.imports import Target


async def dry_run_import(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat",
    rejected: TextIO | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Report what would happen to each line, and return the exit code."""
    async with _dry_run(file, list_=list_, group=group, mode=mode, format_=format_) as found:
        if rejected:
            await write_rejected(rejected, found.rejected, found.columns)
        counts = _counts(found)
    if json_output:
        emit_json(counts)
    else:
        click.echo(_in_words(counts, found.counts.reasons))
    return REJECTED_LINES if found.counts.reasons else None


async def confirm_import(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat"
) -> None:
    """Show what the import would do, and ask. Raises click.Abort.

    The numbers may be unknown: a pipe cannot be read twice, a URL may be open to workers only, and a login may lack the
    right to read codes.
    """
    target = f"list {list_}" if list_ else f"group {group}"
    verb = "Replace the available codes of" if list_ else "Replace the recipients of"
    question = f"{verb} {target}?" if mode == ImportMode.REPLACE else f"Remove these lines from {target}?"
    confirm(question, [await _in_numbers(file, list_=list_, group=group, mode=mode, format_=format_)])


async def _in_numbers(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat"
) -> str:
    from asyncpg import InsufficientPrivilegeError

    from coupons.errors import UserError

    if not isinstance(file, str) and not can_be_read_again(file):
        return "the numbers are unknown: the input is not a file"
    try:
        async with _dry_run(file, list_=list_, group=group, mode=mode, format_=format_) as found:
            words = _in_words(_counts(found), found.counts.reasons)
    except InsufficientPrivilegeError:
        return "the numbers are unknown: this login may not read codes"
    except UserError as error:
        if isinstance(file, str):
            return f"the numbers are unknown: {error}"
        raise
    if not isinstance(file, str):
        os.lseek(file.fileno(), 0, os.SEEK_SET)  # the file object has not read the file, so its seek() may do nothing
    return words


@asynccontextmanager
async def _dry_run(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "FileFormat"
) -> "AsyncIterator[DryRunReport]":
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
            mode=mode, file_format=format_, max_lines=settings().import_max_lines,
        )  # fmt: skip
        yield await stack.enter_async_context(report)


async def _target(connection: "Connection", list_: str | None, group: str | None) -> "Target":
    """Return the list or group. A group that does not exist yet counts as empty, because an import creates it."""
    from coupons.store import groups, lists
    from coupons.store.imports import Target

    if list_ is not None:
        (found,) = await lists.get(connection, list_)
        return Target(found.id, found.name, TargetKind.LIST, found.case_sensitive)
    known = await groups.find(connection, group or "")
    return Target(known.id if known else 0, group or "", TargetKind.GROUP)


def _counts(found: "DryRunReport") -> dict[str, int]:
    from coupons.files.rejections import Reason, parse_reason

    counts = found.counts
    reasons = {reason.value: 0 for reason in Reason}
    for stored, lines in counts.reasons.items():
        reasons[parse_reason(stored)[0]] += lines
    return {
        "lines": found.lines, "new": counts.added, "existing": counts.existing, "removed": counts.removed,
        "blank": found.blank, **reasons,
    }  # fmt: skip


def _in_words(counts: dict[str, int], reasons: dict[str, int]) -> str:
    """Return the counts as text. Every line is counted once: new, already known for some reason, invalid, or blank."""
    from coupons.files.rejections import Reason, describe, parse_reason

    parsed = [(*parse_reason(stored), lines) for stored, lines in sorted(reasons.items())]
    other_lists = [(lines, describe(reason, name)) for reason, name, lines in parsed if reason is Reason.OTHER_LIST]
    words = {
        "new": "new", "existing": "unchanged", "removed": "to be removed", "duplicate": "duplicate in file",
        "in_list": "already in the list", "sent": "already sent", "assigned": "assigned to recipients",
        "reserved": "reserved for sendouts", "not_in_list": "not in list", "blank": "blank",
    }  # fmt: skip
    invalid = counts["lines"] - sum(counts[name] for name in words) - counts["other_list"]
    parts = [(counts[name], word) for name, word in words.items()] + other_lists + [(invalid, "invalid")]
    shown = [f"{amount(lines)} {word}" for lines, word in parts if lines or word == "new"]
    return f"{counted(counts['lines'], 'line')}: {', '.join(shown)}"
