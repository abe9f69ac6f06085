"""`coupons import`: codes into a list."""

from typing import TYPE_CHECKING, BinaryIO, TextIO
from uuid import UUID

import click

from producers.cli.files import (
    FileOrUrl,
    format_options,
    number_or_name,
    rejected_option,
    source_of,
    volume,
    write_rejected,
)
from producers.cli.output import REJECTED_SHOWN, amount, as_json, coloured, emit_json, emit_rejected, moment
from producers.cli.progress import Progress, bar, follow
from producers.cli.runtime import REJECTED_LINES, Failed, asynchronous, database, nothing_begun, settings
from producers.cli.upload import send_import

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.files.format import FileFormat
    from coupons.import_engine import Judgement
    from coupons.store.imports import Event, Import, Mode, Target


@click.command("import")
@click.argument("file", type=FileOrUrl())
@click.option("--list", "list_", required=True, help="The list that gets the codes.")
@click.option(
    "--mode", type=click.Choice(["add", "replace", "delete"]), default="add", show_default=True,
    help="Add the codes; make them the list's only free ones; or delete them where they are free.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would become of each line; write nothing.")
@click.option("--wait", is_flag=True, help="Follow the import to its end.")
@rejected_option
@click.option("--id", "id_", type=click.UUID, help="The command's id; the same id again is the same import.")
@click.option("--kind", type=click.Choice(["txt", "csv"]), help="Found by the file's name and first line.")
@click.option("--header/--no-header", default=None, help="Whether the first line of a CSV file is one.")
@format_options
@as_json
@asynchronous
async def import_file(
    file: BinaryIO | str, list_: str, mode: "Mode", dry_run: bool, wait: bool, rejected: TextIO | None,
    id_: UUID | None, kind: str | None, header: bool | None, encoding: str, separator: str | None, column: str | None,
    json_output: bool,
) -> int | None:  # fmt: skip
    """Import FILE, TXT with one code a line or CSV, also as .gz or .zip; `-` reads stdin.

    The file goes to the workers through the database. FILE may also be a URL that they read themselves: https://…,
    s3://bucket/key, file:///… (hosts, buckets and folder as in the settings).

    Codes that are free and not promised to a sendout can be replaced or deleted, also while sendouts run; how many had
    to stay, and why, is told. Exit code 3: done, but some lines were not taken; see them with `--rejected FILE`, or
    later with `coupons show ID --rejected`.
    """
    from coupons.commands import Format
    from coupons.names import parse_name

    if rejected and not (wait or dry_run):
        raise click.UsageError("--rejected needs --wait or --dry-run")
    format_ = Format(kind=kind, separator=separator, encoding=encoding, column=number_or_name(column), header=header)
    if dry_run:
        return await _dry_run(
            file, parse_name(list_), mode, format_.as_file_format(), rejected, json_output=json_output
        )
    with nothing_begun():
        import_id = await send_import(file, parse_name(list_), mode, format_, id_)
    if not wait:
        emit_json({"id": import_id}) if json_output else click.echo(import_id)
        return None
    return await _wait(import_id, rejected, json_output=json_output)


# --- following -----------------------------------------------------------------------------------------------------


async def _wait(import_id: UUID, rejected: TextIO | None, *, json_output: bool) -> int | None:
    from coupons.store import imports, inbox

    async with database() as connection:

        async def look() -> "Import | None":
            return await imports.find(connection, import_id) if await inbox.is_known(connection, import_id) else None

        job = await follow(look, progress_of, title="importing")
        if json_output and job.state == "finished":
            emit_json(job)
        return await conclude(connection, job, rejected, quiet=json_output)


def progress_of(job: "Import") -> Progress:
    return Progress(
        job.bytes, job.total_bytes, job.state, ended=job.finished_at is not None, per_second=job.per_second,
        seconds_left=job.seconds_left, unit="lines",
        amount=f"{volume(job.bytes, job.total_bytes)}, {amount(job.lines)} lines",
    )  # fmt: skip


async def conclude(connection: "Connection", job: "Import", rejected: TextIO | None, *, quiet: bool) -> int | None:
    """Say what became of an import that has ended; returns the exit code."""
    from coupons.store import imports

    if job.state != "finished":
        raise Failed(f"import {job.id} into {job.target} {job.state}{_because(job)}")
    if rejected:
        await write_rejected(rejected, imports.rejections(connection, job.id), job.columns)
    if not quiet:
        describe(job)
        await _tell_what_follows(connection, job)
        first = await imports.first_rejections(connection, job.id, REJECTED_SHOWN)
        emit_rejected(first, job.rejected, rest=f"coupons show {job.id} --rejected")
    return REJECTED_LINES if job.rejected else None


async def _tell_what_follows(connection: "Connection", job: "Import") -> None:
    """Sendouts that wait for codes of this list, and could go on now."""
    from coupons.store import sendout_views

    if job.list:
        for each in await sendout_views.covered_by(connection, job.list):
            click.echo(f"sendout {each.id} ({each.message}) is covered now: coupons resume {each.id}", err=True)


def _because(job: "Import") -> str:
    taken = f"; {amount(job.lines)} lines were taken" if job.lines else ""
    return f": {job.reason}{taken}" if job.reason else taken


def describe(job: "Import", events: "tuple[Event, ...] | list[Event]" = ()) -> None:
    """What became of an import, in one line, and what was special about it."""
    kept = "known" if job.group else "kept"
    parts = {"added": job.added, "removed": job.removed, kept: job.kept, "blank": job.blank}
    changed = "".join(f", {amount(number)} {what}" for what, number in parts.items() if number)
    reason = f": {job.reason}" if job.reason else ""
    click.echo(
        f"import {job.id} into {job.target} {coloured(job.state)}{reason}: {amount(job.lines)} lines{changed}, "
        f"{amount(job.rejected)} rejected"
    )
    left = {"promised to sendouts": job.kept_reserved, "belong to recipients": job.kept_assigned}
    if any(left.values()):
        whose = ", ".join(f"{amount(number)} {why}" for why, number in left.items() if number)
        click.echo(f"  not removed: {whose}")
    if job.same_at:
        click.echo(f"  the same file was imported on {moment(job.same_at)} ({job.same_as}): {amount(job.added)} new")
    for event in events:
        click.echo(f"  {event.at.astimezone():%Y-%m-%d %H:%M:%S}  {event.text}")


# --- a dry run -----------------------------------------------------------------------------------------------------


async def _dry_run(
    file: BinaryIO | str, list_: str, mode: "Mode", format_: "FileFormat", rejected: TextIO | None, *, json_output: bool
) -> int | None:
    from coupons.store import lists
    from coupons.store.imports import Target

    async with database() as connection:
        (found,) = await lists.named(connection, list_)
        target = Target(found.id, found.name, is_group=False)
        return await judge(connection, file, target, mode, format_, rejected, json_output=json_output)


async def judge(
    connection: "Connection", file: BinaryIO | str, target: "Target", mode: "Mode", format_: "FileFormat",
    rejected: TextIO | None, *, json_output: bool,
) -> int | None:  # fmt: skip
    """Say what would become of each line; returns the exit code."""
    from contextlib import AsyncExitStack

    from coupons import import_engine
    from coupons.sources import SourceLimits, open_source

    rules = SourceLimits.from_settings(settings())
    async with AsyncExitStack() as stack:
        stack.enter_context(nothing_begun())
        show = stack.enter_context(bar("reading"))
        source = (
            await stack.enter_async_context(open_source(file, rules))
            if isinstance(file, str)
            else source_of(file, show)
        )
        found = await stack.enter_async_context(
            import_engine.judged(
                connection,
                target,
                source,
                rules,
                mode=mode,
                file_format=format_,
                max_lines=settings().import_max_lines,
            )
        )
        if rejected:
            await write_rejected(rejected, found.rejected, found.columns)
    counts = _counts(found)
    if json_output:
        emit_json(counts)
    else:
        click.echo(_in_words(counts))
    return REJECTED_LINES if found.verdict.reasons else None


def _counts(found: "Judgement") -> dict[str, int]:
    from coupons.files.rejections import Reason

    verdict = found.verdict
    reasons = {reason.value: verdict.reasons.get(reason.value, 0) for reason in Reason}
    counts = {"lines": found.lines, "new": verdict.added, "kept": verdict.kept, "removed": verdict.removed}
    return counts | {"blank": found.blank} | reasons


def _in_words(counts: dict[str, int]) -> str:
    """Every line is counted once: new, known for one reason or another, invalid, blank."""
    words = {
        "new": "new", "kept": "kept", "removed": "to be removed", "duplicate": "duplicate in file",
        "in_list": "already in list", "sent": "already sent", "assigned": "already assigned",
        "reserved": "reserved for sendouts", "not_in_list": "not in list", "blank": "blank",
    }  # fmt: skip
    invalid = counts["lines"] - sum(counts[name] for name in words)
    parts = [f"{amount(counts[name])} {word}" for name, word in words.items() if counts[name] or name == "new"]
    return f"{amount(counts['lines'])} lines: " + ", ".join([*parts, *([f"{amount(invalid)} invalid"] * bool(invalid))])
