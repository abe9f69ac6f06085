"""`coupons show`: one sendout or import in detail."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from coupons.states import SendoutState
from producers.cli.imports import describe as describe_import
from producers.cli.imports import follow_import
from producers.cli.job_id import JobId
from producers.cli.output import (
    amount,
    as_json,
    coloured,
    counted,
    emit_csv,
    emit_json,
    emit_next,
    emit_table,
    limit_option,
    moment,
)
from producers.cli.progress import check_timeout, timeout_option
from producers.cli.runtime import Failed, asynchronous, database
from producers.durations import format_deferred, format_duration, format_limit, format_rate

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.store.sendout_views import Sendout, SendoutList

STATES_BEFORE_ADMISSION = (SendoutState.QUEUED, SendoutState.PREPARING, SendoutState.INTERRUPTED)
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
            emit_json(job) if json_output else describe_import(job, await imports.list_events(connection, id_))
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
    from producers.cli.sendouts import follow_sendout

    async with database() as connection:
        is_import = await imports.find(connection, id_) is not None
        if not is_import and await sendout_views.find(connection, id_) is None:
            raise Failed(f"there is no sendout or import {id_}")
    if is_import:
        return await follow_import(id_, timeout_seconds=timeout_seconds, json_output=json_output)
    return await follow_sendout(id_, timeout_seconds=timeout_seconds, json_output=json_output)


def describe(sendout: "Sendout") -> None:
    """Print a sendout in a few lines."""
    click.echo(
        f"sendout {sendout.id} {coloured(sendout.state)}: {sendout.message} to {sendout.group or 'inline recipients'}"
    )
    click.echo(f"  {counted(sendout.recipients, 'recipient')}: {_counts(sendout)}")
    for line in _audience(sendout):
        click.echo(f"  {line}")
    for each in sendout.lists:
        click.echo(f"  list {each.name}{' (deleted)' if each.deleted else ''}: {_codes(sendout.state, each)}")
    if sendout.resumable:
        click.echo(f"  {next_step(sendout)}")
    elif sendout.auto_resume and sendout.state in STATES_BEFORE_ADMISSION:
        click.echo("  resumes automatically once its lists have enough codes")
    if sendout.stall:
        click.echo(f"  {sendout.stall}")
    for line in _pace(sendout):
        click.echo(f"  {line}")
    for line in list_problems(sendout):
        click.echo(f"  {line}")


def _audience(sendout: "Sendout") -> Iterator[str]:
    """Yield the recipients that were left out, and the size of the first part until the rest is mailed."""
    if sendout.already_mailed:
        yield f"{counted(sendout.already_mailed, 'recipient')} left out: already mailed in another sendout"
    is_planned = sendout.rest_held or (sendout.may_send and not sendout.started_at)
    if sendout.first and is_planned and not sendout.is_first_mailed:
        yield f"pauses after {describe_first(sendout.first)}"


def describe_first(recipients: int) -> str:
    return "the first recipient" if recipients == 1 else f"the first {recipients:,} recipients"


def list_problems(sendout: "Sendout") -> Iterator[str]:
    """Yield how many mails were refused or are uncertain, each with the command that helps."""
    if sendout.refused:
        verb = "was" if sendout.refused == 1 else "were"
        step = f"; retry with `coupons retry {sendout.id}`" if sendout.retryable else ""
        yield f"{counted(sendout.refused, 'mail')} {verb} refused: see `coupons show {sendout.id} --replies`{step}"
    if sendout.uncertain:
        verb = "is" if sendout.uncertain == 1 else "are"
        yield f"{counted(sendout.uncertain, 'mail')} {verb} uncertain: see `coupons uncertain {sendout.id}`"


def next_step(sendout: "Sendout") -> str:
    """Return what happens next to an interrupted sendout whose lists have enough codes."""
    step = "it resumes automatically" if sendout.auto_resume else f"resume it with `coupons resume {sendout.id}`"
    return f"has enough codes now; {step}"


def format_start(sendout: "Sendout") -> str:
    """Return when the sendout starts, or "" if it does not start in the future."""
    if not sendout.may_send or sendout.start_at is None or sendout.start_at <= datetime.now(UTC):
        return ""
    return f"starts {moment(sendout.start_at)}"


def format_pace(sendout: "Sendout") -> str:
    """Return the sendout's rate limit, or "" if it has none or has ended."""
    return f"at most {format_limit(sendout.per_hour)}" if sendout.per_hour and sendout.may_send else ""


def format_speed(sendout: "Sendout") -> str:
    """Return the rate, the time left and the number of deferred mails, as far as they are known."""
    return ", ".join(filter(None, (_rate(sendout), _left(sendout), format_waiting(sendout))))


def format_waiting(sendout: "Sendout") -> str:
    """Return how many mails wait for another attempt, or "" if there are none."""
    return format_deferred(sendout.deferred, sendout.next_attempt_at) if sendout.deferred else ""


def _rate(sendout: "Sendout") -> str:
    return format_rate(sendout.per_second) if sendout.per_second else ""


def _left(sendout: "Sendout") -> str:
    return f"{format_duration(sendout.seconds_left)} left" if sendout.seconds_left else ""


def _counts(sendout: "Sendout") -> str:
    counts = {
        "sent": sendout.sent,
        "refused": sendout.refused,
        "uncertain": sendout.uncertain,
        "cancelled": sendout.cancelled,
    }
    shown = [f"{amount(number)} {what}" for what, number in counts.items() if number or what == "sent"]
    in_flight = f" ({amount(sendout.in_flight)} in flight)" if sendout.in_flight else ""
    return f"{', '.join(shown)}, {amount(sendout.remaining)} remaining{in_flight}"


def _codes(state: SendoutState, of: "SendoutList") -> str:
    if state == SendoutState.INTERRUPTED:
        restore = f"; run `coupons list restore {of.name}` to import them" if of.archived and of.missing else ""
        return f"{amount(of.needed)} needed, {amount(of.available)} available, {amount(of.missing)} missing{restore}"
    without = f", {amount(of.missing)} get the alternative text" if of.missing else ""
    counts = {"needed": of.needed, "reserved": of.reserved, "assigned": of.assigned, "sent": of.sent}
    return ", ".join(f"{amount(number)} {what}" for what, number in counts.items()) + without


def _pace(sendout: "Sendout") -> Iterator[str]:
    """Yield the start time, the rate limit, the speed, and why the sendout waits."""
    if start := format_start(sendout):
        yield start
    if pace := format_pace(sendout):
        yield pace
    if speed := format_speed(sendout):
        yield speed
    if sendout.waiting:
        yield sendout.waiting
    if sendout.not_resumed:
        yield f"not resumed: {sendout.not_resumed}"
    if sendout.waiting_reason:
        yield f"waiting: {sendout.waiting_reason}"
    if sendout.reason and sendout.state != SendoutState.INTERRUPTED:
        yield sendout.reason
