"""`coupons import`: imports codes into a list, or recipients into a group, and the commands about imports."""

from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO
from uuid import UUID

import click

from coupons.states import FILE_MODES, ImportMode, ImportPhase, ImportState
from producers.cli.confirm import require_free_stdin
from producers.cli.dry_run import dry_run_import, review_import
from producers.cli.files import FileOrUrl, format_options, format_volume, parse_format, write_rejected
from producers.cli.group import DefaultGroup
from producers.cli.output import (
    REJECTED_SHOWN,
    amount,
    as_json,
    coloured,
    counted,
    describe_kept,
    describe_reading,
    emit_json,
    emit_reasons,
    emit_rejected,
    moment,
)
from producers.cli.progress import Progress, check_timeout, follow, timeout_option
from producers.cli.runtime import REJECTED_LINES, Failed, asynchronous, database, on_abort
from producers.cli.upload import send_import

if TYPE_CHECKING:
    from coupons.commands import Format
    from coupons.database import Connection
    from coupons.store.imports import Event, ImportStatus


allow_empty_option = click.option(
    "--allow-empty", is_flag=True, help="Replace even if no line is accepted: nothing remains."
)


def follow_options(command: Any, *, rejected_needs: str = "--wait") -> Any:
    """Add the options of commands that start an import and may follow it."""
    for option in reversed((
        click.option("--wait", is_flag=True, help="Wait until the import finishes, with a progress bar."),
        timeout_option,
        click.option(
            "--rejected", metavar="OUTPUT", type=click.File("w", encoding="utf-8", lazy=True),
            help=f"Write rejected lines to this CSV, to fix and import again. Needs {rejected_needs}.",
        ),
        click.option(
            "--id", "id_", type=click.UUID,
            help="Idempotency key: repeating the command with the same id starts no second import.",
        ),
        as_json,
    )):  # fmt: skip
        command = option(command)
    return command


def import_options(command: Any) -> Any:
    """Add the options that imports into lists and into groups share."""
    for option in reversed((
        click.option(
            "--mode", type=click.Choice([mode.value for mode in FILE_MODES]), default=ImportMode.ADD.value,
            help="\b\nadd: add codes or recipients (default)\n"
            "replace: also remove all other available codes,\n         or all other recipients\n"
            "delete: remove these codes if available,\n        or these recipients",
        ),
        click.option(
            "--dry-run", is_flag=True, help="Report what would happen to each line without importing.",
        ),
        click.option(
            "--yes", is_flag=True,
            help="Skip confirmation; also import codes that look like those of another list, and replace or delete"
            " although most lines are rejected.",
        ),
        allow_empty_option,
        partial(follow_options, rejected_needs="--wait or --dry-run"),
        format_options,
    )):  # fmt: skip
        command = option(command)
    return command


@click.command("import")
@click.argument("file", type=FileOrUrl())
@click.option("--list", "list_", help="List to import codes into.")
@click.option("--group", help="Group to import recipients into; created if missing.")
@import_options
@asynchronous
async def import_file(
    file: BinaryIO | str, list_: str | None, group: str | None, mode: str, format_fields: dict[str, Any],
    **options: Any,
) -> int | None:  # fmt: skip
    """Import codes into a list, or recipients into a group.

    FILE is a text file with one code per line, or a table: a CSV file or a spreadsheet. The recipients of a group are
    a table with a header, or one address per line. FILE may be compressed as .gz or .zip. Use `-` for stdin. It is
    uploaded, and a worker imports it. FILE may also be a URL that the worker downloads: https://…, s3://bucket/key or
    file:///… (if COUPONS_IMPORT_HOSTS, _BUCKETS or _FOLDER allow it).

    The column `email` (or `E-Mail-Adresse`, `Courriel` …) of recipients holds the address. Every other column is an
    attribute that messages can use. If a recipient is already in the group, attributes in FILE replace the stored
    attributes of the same name; with --mode replace, the group has only the attributes in FILE.

    Only available codes are replaced or deleted, even while sendouts are running; the report shows how many were kept
    and why.

    Exit code 3: the import finished, but some lines were rejected. `--rejected OUTPUT` writes these lines to
    a CSV, and `coupons show ID --rejected` prints them later.
    """
    from coupons.names import parse_name

    if (list_ is None) == (group is None):
        raise click.UsageError("exactly one of --list and --group is required")
    return await run_import(
        file, list_=parse_name(list_) if list_ else None, group=parse_name(group) if group else None,
        mode=ImportMode(mode), format_=parse_format(format_fields), **options,
    )  # fmt: skip


imports = DefaultGroup(import_file)
"""`coupons import FILE`, and the commands about imports."""


async def run_import(
    file: BinaryIO | str, *, list_: str | None = None, group: str | None = None, mode: ImportMode, format_: "Format",
    dry_run: bool, yes: bool, allow_empty: bool, wait: bool, timeout_seconds: float | None, rejected: TextIO | None,
    id_: UUID | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Import into a list or a group as the options say, and return the exit code."""
    check_timeout(timeout_seconds, wait=wait)
    check_idle_options(format_, is_list=list_ is not None, mode=mode, allow_empty=allow_empty)
    if rejected and not (wait or dry_run):
        raise click.UsageError("--rejected needs --wait or --dry-run")
    if dry_run:
        file_format = format_.as_file_format()
        return await dry_run_import(
            file, list_=list_, group=group, mode=mode, format_=file_format, confirmed=yes, rejected=rejected,
            json_output=json_output,
        )  # fmt: skip
    if mode != ImportMode.ADD and not yes:
        require_free_stdin(file)
    confirmed = yes
    if mode != ImportMode.ADD and not yes:
        confirmed = await review_import(
            file, list_=list_, group=group, mode=mode, format_=format_.as_file_format(), allow_empty=allow_empty
        )
    with on_abort("nothing was imported"):
        import_id = await send_import(
            file, list_=list_, group=group, mode=mode, format_=format_, id_=id_,
            confirmed=confirmed, allow_empty=allow_empty,
        )  # fmt: skip
    return await finish_import(
        import_id, wait=wait, timeout_seconds=timeout_seconds, rejected=rejected, json_output=json_output
    )


def check_idle_options(format_: "Format", *, is_list: bool, mode: ImportMode, allow_empty: bool) -> None:
    """Refuse an option that would have no effect. Raises click.UsageError."""
    if is_list and format_.columns:
        raise click.UsageError("--columns needs --group: codes have no attributes")
    if not is_list and format_.allow_lookalikes:
        raise click.UsageError("--allow-lookalikes needs --list: only codes are checked for look-alikes")
    if allow_empty and mode != ImportMode.REPLACE:
        raise click.UsageError("--allow-empty needs --mode replace")


async def finish_import(
    import_id: UUID, *, wait: bool, timeout_seconds: float | None, rejected: TextIO | None, json_output: bool
) -> int | None:
    """Print the id of a published import, or follow the import, as the options say. Return the exit code."""
    if wait:
        return await follow_import(import_id, rejected, timeout_seconds=timeout_seconds, json_output=json_output)
    emit_json({"id": import_id}) if json_output else click.echo(import_id)
    return None


async def follow_import(
    import_id: UUID, rejected: TextIO | None = None, *, timeout_seconds: float | None, json_output: bool
) -> int | None:
    """Wait for the end, report the result, and return the exit code. Raises Failed if the import did not finish."""
    from coupons.store import imports, inbox

    async with database() as connection:

        async def look() -> "ImportStatus | None":
            return await imports.find(connection, import_id) if await inbox.is_known(connection, import_id) else None

        job = await follow(
            look,
            _progress_of,
            title="importing",
            timeout_seconds=timeout_seconds,
            again=f"coupons show {import_id} --wait",
        )
        if json_output and job.state == ImportState.FINISHED:
            emit_json(job)
        return await _report(connection, job, rejected, quiet=json_output)


def _progress_of(job: "ImportStatus") -> Progress:
    if job.phase == ImportPhase.REMOVING:
        what = "recipients" if job.group else "codes"
        return Progress(
            job.removed, job.to_remove, ImportPhase.REMOVING,
            amount=f"{amount(job.removed)} of {amount(job.to_remove)} {what} removed",
            rate=f"{job.per_second:,.0f} {what}/s" if job.per_second else "", seconds_left=job.seconds_left,
        )  # fmt: skip
    return Progress(
        job.done_bytes, job.total_bytes, job.stall or job.phase or job.state, ended=job.finished_at is not None,
        amount=f"{format_volume(job.read_bytes, job.total_bytes)}, {counted(job.lines, 'line')}",
        rate=f"{job.per_second:,.0f} lines/s" if job.per_second else "", seconds_left=job.seconds_left,
    )  # fmt: skip


async def _report(connection: "Connection", job: "ImportStatus", rejected: TextIO | None, *, quiet: bool) -> int | None:
    """Report the result of an ended import, and return the exit code. Raises Failed if it did not finish."""
    from coupons.store import imports

    if job.state != ImportState.FINISHED:
        raise Failed(f"import {job.id} into {job.target} {job.state}{_failure(job)}{await remedy(connection, job)}")
    if rejected:
        await write_rejected(rejected, imports.iter_rejections(connection, job.id), job.columns)
    if not quiet:
        describe(job)
        await _suggest_resuming(connection, job)
        rest = f"coupons show {job.id} --rejected"
        if job.mode == ImportMode.UNDO:
            emit_reasons(await imports.count_reasons(connection, job.id), rest=rest)
        else:
            emit_rejected(
                await imports.list_first_rejections(connection, job.id, REJECTED_SHOWN), job.rejected, rest=rest
            )
    return None if job.is_complete else REJECTED_LINES


async def _suggest_resuming(connection: "Connection", job: "ImportStatus") -> None:
    """Print the interrupted sendouts that now have enough codes."""
    from coupons.store import sendout_views

    if job.list:
        for each in await sendout_views.list_resumable(connection, job.list):
            click.echo(
                f"sendout {each.id} ({each.message}) has enough codes now; resume it with `coupons resume {each.id}`",
                err=True,
            )


def _failure(job: "ImportStatus") -> str:
    """Return the reason, and how many lines were already processed, if they have changed something: they stay."""
    reason = f": {job.reason}" if job.reason else ""
    return f"{reason}; {counted(job.lines, 'line')} already processed" if job.has_changed else reason


async def remedy(connection: "Connection", job: "ImportStatus") -> str:
    """Return how a failed import can be retried, if its file can be read again."""
    from coupons.store import imports

    if job.state != ImportState.FAILED or not await imports.can_be_retried(connection, job.id):
        return ""
    return f"; retry it, with other options if needed: coupons import retry {job.id}"


def _counts_of(job: "ImportStatus") -> str:
    if job.mode == ImportMode.UNDO:
        return (
            f"undo of import {job.undone}: {amount(job.removed)} of {amount(job.to_take_back)} taken back, "
            f"{amount(job.added)} of {amount(job.to_restore)} restored"
        )
    existing = "updated" if job.group else "unchanged"
    removed_lines = job.removed if job.mode == ImportMode.DELETE else 0
    parts = {"added": job.added, "removed": removed_lines, existing: job.existing, "blank": job.blank}
    changed = "".join(f", {amount(number)} {what}" for what, number in parts.items() if number)
    return f"{counted(job.lines, 'line')}{changed}, {amount(job.rejected)} rejected"


def describe(job: "ImportStatus", events: "tuple[Event, ...] | list[Event]" = (), *, remedy: str = "") -> None:
    """Print an import's result in one line, the codes that it kept, what can be done, and its log."""
    from producers.local_time import format_time

    reason = f": {job.reason}" if job.reason else ""
    result = f"{reason}{remedy}"
    if job.lines or job.state != ImportState.FAILED:
        result = f"{reason}: {_counts_of(job)}{remedy}"
    click.echo(f"import {job.id} into {job.target} {coloured(job.state)}{result}")
    if job.undone_by:
        click.echo(f"  undone by import {job.undone_by}")
    if job.stall:
        click.echo(f"  {job.stall}")
    if job.mode == ImportMode.REPLACE and (job.removed or job.state == ImportState.FINISHED):
        click.echo(f"  removed: {counted(job.removed, 'recipient' if job.group else 'code')} not in the file")
    for line in (*describe_kept(job.kept_reserved, job.kept_assigned), *describe_reading(job.read_as, job.notices)):
        click.echo(f"  {line}")
    if job.same_at:
        click.echo(f"  the same file was imported on {moment(job.same_at)} ({job.same_as}): {amount(job.added)} new")
    if job.phase:
        click.echo(f"  {_progress_of(job).line}")
    for event in events:
        text = event.text.removesuffix(reason) if reason else event.text  # the first line has the reason
        click.echo(f"  {format_time(event.at, seconds=True)}  {text}")
