"""`coupons show`: one sendout or import in detail."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from producers.cli.imports import describe as describe_import
from producers.cli.imports import follow_import, remedy
from producers.cli.job_id import JobId
from producers.cli.output import (
    as_json,
    emit_csv,
    emit_json,
    emit_next,
    emit_table,
    limit_option,
)
from producers.cli.progress import check_timeout, timeout_option
from producers.cli.runtime import Failed, asynchronous, database
from producers.cli.sendout_text import describe
from producers.cli.sendouts import follow_sendout

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.store.sendout_views import Sendout

REPLY_COLUMNS = {
    "address": lambda row: row.address,
    "attempt": lambda row: row.attempt,
    "outcome": lambda row: row.outcome,
    "at": lambda row: row.at,
    "reply": lambda row: row.reply,
}
PROBLEM_COLUMNS = {
    "ADDRESS": lambda row: row.address,
    "STATE": lambda row: row.state,
    "ATTEMPTS": lambda row: row.attempts,
    "REPLY": lambda row: row.reply,
}


@click.command()
@click.argument("id_", metavar="ID", type=JobId("sendout", "import"))
@click.option("--rejected", is_flag=True, help="Print the rejected lines of an import as CSV.")
@click.option("--replies", is_flag=True, help="Print the relay's non-success replies to a sendout as CSV.")
@click.option("--wait", is_flag=True, help="Wait until the sendout or import ends, as the command with --wait does.")
@timeout_option
@limit_option(100)
@click.option("--after", type=click.IntRange(0, 2**31 - 1), default=0, metavar="NUMBER", help="Show only problematic"
              " mails of recipients after NUMBER.")  # fmt: skip
@as_json
@asynchronous
async def show(
    id_: UUID, rejected: bool, replies: bool, wait: bool, timeout_seconds: float | None, limit: int, after: int,
    json_output: bool,
) -> int | None:  # fmt: skip
    """Show one sendout or import in detail.

    ID is the id that `coupons send` or `coupons import` printed, or its first characters (at least 4), as for all
    commands with an id. A sendout is shown with its first problematic mails, an import with its log. --wait has the
    output and exit codes of `coupons send --wait` or `coupons import --wait`.
    """
    from coupons.files.rejections import streamed_rejections_csv
    from coupons.store import imports, lookup, sendout_views

    check_timeout(timeout_seconds, wait=wait)
    if wait and (rejected or replies):
        raise click.UsageError("give at most one of --wait, --rejected and --replies")
    if wait:
        return await _wait(id_, timeout_seconds, json_output=json_output)
    async with database() as connection:
        job = await imports.find(connection, id_)
        if job and rejected:
            async for line in streamed_rejections_csv(imports.iter_rejections(connection, id_), job.columns):
                click.echo(line, nl=False)
            return None
        if job:
            if json_output:
                emit_json(job)
            else:
                events = await imports.list_events(connection, id_)
                describe_import(job, events, remedy=await remedy(connection, job))
            return None
        sendout = await sendout_views.find(connection, id_)
        if sendout is None:
            raise Failed(f"there is no sendout or import {id_}")
        if replies:
            await emit_csv(lookup.iter_replies(connection, id_), REPLY_COLUMNS)
            return None
        await _show_sendout(connection, sendout, limit, after, json_output=json_output)
    return None


async def _show_sendout(
    connection: "Connection", sendout: "Sendout", limit: int, after: int, *, json_output: bool
) -> None:
    """Show the sendout, and the first of its problematic mails after this number."""
    from coupons.paging import cut
    from coupons.store import sendout_views

    rows = await sendout_views.list_problems(connection, sendout.id, limit=limit + 1, after=after)
    problems, last = cut(rows, limit)
    if json_output:
        emit_json({"sendout": sendout, "problems": problems})
    else:
        describe(sendout)
        if problems:
            emit_table(problems, PROBLEM_COLUMNS, empty="")
    if last:
        emit_next("show", sendout.id, "--limit", limit, "--after", last.number)


async def _wait(id_: UUID, timeout_seconds: float | None, *, json_output: bool) -> int | None:
    from coupons.store import imports, sendout_views

    async with database() as connection:
        is_import = await imports.find(connection, id_) is not None
        if not is_import and await sendout_views.find(connection, id_) is None:
            raise Failed(f"there is no sendout or import {id_}")
    if is_import:
        return await follow_import(id_, timeout_seconds=timeout_seconds, json_output=json_output)
    return await follow_sendout(id_, timeout_seconds=timeout_seconds, json_output=json_output)
