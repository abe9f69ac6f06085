"""`coupons outbox`, `show`: what became of sendouts, and how far they are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from coupons.states import SendoutState
from producers.cli.imports import describe as describe_import
from producers.cli.output import amount, as_json, coloured, emit_csv, emit_json, emit_table, moment
from producers.cli.runtime import Failed, asynchronous, database
from producers.durations import format_duration, format_rate

if TYPE_CHECKING:
    from coupons.store.sendout_views import Sendout, SendoutList


@click.command()
@click.option("--status", type=click.Choice([state.value for state in SendoutState]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The newest ones.")
@as_json
@asynchronous
async def outbox(status: str | None, limit: int, json_output: bool) -> None:
    """All sendouts, newest first."""
    from coupons.store import sendout_views

    async with database() as connection:
        found = await sendout_views.newest(connection, state=SendoutState(status) if status else None, limit=limit)
    if json_output:
        emit_json(found)
        return
    columns = {
        "SENDOUT": lambda row: row.id,
        "MESSAGE": lambda row: row.message,
        "GROUP": lambda row: row.group or "(given)",
        "STATUS": lambda row: row.state,
        "RECIPIENTS": lambda row: row.recipients,
        "SENT": lambda row: row.sent,
        "CREATED": lambda row: row.created_at,
        "REMARKS": lambda row: "; ".join(_remarks(row)),
    }
    emit_table(found, columns, empty=f"no {status or ''} sendouts".replace("  ", " "))


def _remarks(sendout: "Sendout") -> Iterator[str]:
    """What is not as it should be, or not yet: how fast it goes, codes that are missing, mails that were not sent."""
    counts = {"refused": sendout.refused, "uncertain": sendout.uncertain, "cancelled": sendout.cancelled}
    yield from (f"{amount(number)} {what}" for what, number in counts.items() if number)
    if sendout.resumable:
        yield _resumable(sendout)
    elif sendout.state == SendoutState.INTERRUPTED:
        yield from (f"{each.name}: {amount(each.missing)} missing" for each in sendout.lists if each.missing)
    elif sendout.waiting_reason:
        yield f"waiting: {sendout.waiting_reason}"
    elif sendout.reason:
        yield sendout.reason
    elif later := starts_later(sendout):
        yield later
    elif speed := _speed(sendout):
        yield speed


@click.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@click.option("--rejected", is_flag=True, help="Of an import: print the lines that were not taken as CSV.")
@click.option("--replies", is_flag=True, help="Of a sendout: print as CSV what the relay said whenever it did not take"
              " a mail at once.")  # fmt: skip
@as_json
@asynchronous
async def show(id_: UUID, rejected: bool, replies: bool, json_output: bool) -> None:
    """One sendout or import, with everything that is known about it."""
    from coupons.files.rejections import streamed_rejections_csv
    from coupons.store import imports, lookup, sendout_views

    async with database() as connection:
        job = await imports.find(connection, id_)
        if job and rejected:
            async for line in streamed_rejections_csv(imports.rejections(connection, id_), job.columns):
                click.echo(line, nl=False)
            return
        if job:
            emit_json(job) if json_output else describe_import(job, await imports.events(connection, id_))
            return
        sendout = await sendout_views.find(connection, id_)
        if sendout is None:
            raise Failed(f"there is no sendout or import {id_}")
        if replies:
            columns = {
                "address": lambda row: row.address,
                "attempt": lambda row: row.attempt,
                "outcome": lambda row: row.outcome,
                "at": lambda row: row.at,
                "reply": lambda row: row.reply,
            }
            await emit_csv(lookup.answers_of(connection, id_), columns)
            return
        problems = await sendout_views.problems(connection, id_)
    if json_output:
        emit_json({"sendout": sendout, "problems": problems})
        return
    describe(sendout)
    if problems:
        columns = {
            "ADDRESS": lambda row: row.address,
            "STATE": lambda row: row.state,
            "ATTEMPTS": lambda row: row.attempts,
            "REPLY": lambda row: row.reply,
        }
        emit_table(problems, columns, empty="")


def describe(sendout: "Sendout") -> None:
    """A sendout in a few lines."""
    click.echo(
        f"sendout {sendout.id} {coloured(sendout.state)}: {sendout.message} to {sendout.group or 'given recipients'}"
    )
    click.echo(f"  {amount(sendout.recipients)} recipients: {_counts(sendout)}")
    for each in sendout.lists:
        click.echo(f"  list {each.name}{' (deleted)' if each.deleted else ''}: {_needs(sendout.state, each)}")
    if sendout.resumable:
        click.echo(f"  {_resumable(sendout)}")
    elif sendout.auto_resume and not sendout.started_at and not sendout.finished_at:
        click.echo("  resumes by itself once its lists have enough codes")
    for line in _pace(sendout):
        click.echo(f"  {line}")
    if sendout.uncertain:
        click.echo(f"  whether {amount(sendout.uncertain)} were sent is uncertain: coupons uncertain {sendout.id}")


def _resumable(sendout: "Sendout") -> str:
    return "has enough codes now: " + (
        "it resumes automatically" if sendout.auto_resume else f"coupons resume {sendout.id}"
    )


def _counts(sendout: "Sendout") -> str:
    counts = {
        "sent": sendout.sent,
        "refused": sendout.refused,
        "uncertain": sendout.uncertain,
        "cancelled": sendout.cancelled,
    }
    shown = [f"{amount(number)} {what}" for what, number in counts.items() if number or what == "sent"]
    in_flight = f", {amount(sendout.in_flight)} of these in hand" if sendout.in_flight else ""
    return f"{', '.join(shown)}, {amount(sendout.remaining)} remaining{in_flight}"


def _needs(state: SendoutState, of: "SendoutList") -> str:
    if state == SendoutState.INTERRUPTED:
        return f"{amount(of.needed)} needed, {amount(of.available)} available, {amount(of.missing)} missing"
    without = f", {amount(of.missing)} get the alternative text" if of.missing else ""
    counts = {"needed": of.needed, "reserved": of.reserved, "assigned": of.assigned, "sent": of.sent}
    return ", ".join(f"{amount(number)} {what}" for what, number in counts.items()) + without


def _pace(sendout: "Sendout") -> Iterator[str]:
    """When it starts, how fast it was asked to go, how fast it goes, and why it does not."""
    if later := starts_later(sendout):
        yield later
    if sendout.per_hour and not sendout.finished_at:
        yield f"at most {sendout.per_hour:,.0f} mails an hour"
    if speed := _speed(sendout):
        yield speed
    if sendout.waiting_reason:
        yield f"waiting: {sendout.waiting_reason}"
    if sendout.reason and sendout.state != SendoutState.INTERRUPTED:
        yield sendout.reason


def starts_later(sendout: "Sendout") -> str:
    """That it starts later and when; "" if it does not."""
    if sendout.finished_at or sendout.start_at is None or sendout.start_at <= datetime.now(UTC):
        return ""
    return f"starts {moment(sendout.start_at)}"


def _speed(sendout: "Sendout") -> str:
    if not sendout.per_second:
        return ""
    left = f", {format_duration(sendout.seconds_left)} left" if sendout.seconds_left else ""
    return f"{format_rate(sendout.per_second)}{left}"
