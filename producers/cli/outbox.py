"""`coupons outbox`: all sendouts."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import click

from coupons.states import STATE_FILTERS, SendoutState, parse_filter
from producers.cli.job_id import JobId
from producers.cli.output import amount, as_json, counted, emit_json, emit_next, emit_table, limit_option
from producers.cli.runtime import asynchronous, database, settings
from producers.cli.sendout_text import format_speed, format_start, next_step

if TYPE_CHECKING:
    from coupons.store.sendout_views import Sendout

STATES = [*map(str, STATE_FILTERS)]


@click.command()
@click.option("--state", type=click.Choice(STATES), metavar="STATE", help=f"Show only sendouts in this state:"
              f" {', '.join(STATES)}.")  # fmt: skip
@limit_option(100)
@click.option(
    "--before", type=JobId("sendout"), metavar="ID", help="Show only sendouts that are older than sendout ID."
)
@as_json
@asynchronous
async def outbox(state: str | None, limit: int, before: UUID | None, json_output: bool) -> None:
    """List sendouts, newest first.

    Also reports which roles no live worker has, and how many commands wait for such a worker.
    """
    from coupons.paging import cut
    from coupons.store import heartbeats, sendout_views

    wanted = parse_filter(state) if state else None
    async with database() as connection:
        rows = await sendout_views.list_newest(connection, state=wanted, limit=limit + 1, before=before)
        uncovered = heartbeats.uncovered_roles(await heartbeats.list_workers(connection))
    await _report_uncovered(uncovered)
    found, last = cut(rows, limit)
    if json_output:
        emit_json(found)
    else:
        _print(found, state)
    if last:
        filtered = ("--state", state) if state else ()
        emit_next("outbox", *filtered, "--limit", limit, "--before", last.id)


def _print(found: Sequence["Sendout"], state: str | None) -> None:
    columns = {
        "SENDOUT": lambda row: row.id,
        "MESSAGE": lambda row: row.message,
        "GROUP": lambda row: row.group or "(inline)",
        "STATE": lambda row: row.state,
        "RECIPIENTS": lambda row: row.recipients,
        "SENT": lambda row: row.sent,
        "CREATED": lambda row: row.created_at,
        "REMARKS": lambda row: "; ".join(_remarks(row)),
    }
    emit_table(found, columns, empty=f"no {state} sendouts" if state else "no sendouts")
    if problems := sum(each.has_problems for each in found):
        click.echo(
            f"{counted(problems, 'sendout')} finished with refused or uncertain mails: see `coupons show ID`", err=True
        )


async def _report_uncovered(roles: list[str]) -> None:
    """Report on stderr the roles without a live worker, and the commands that no worker takes."""
    from coupons.store.heartbeats import describe_uncovered
    from producers.pending import list_pending

    if roles:
        click.echo(describe_uncovered(roles), err=True)
    for each in await list_pending(settings().broker_url.get_secret_value(), roles):
        click.echo(str(each), err=True)


def _remarks(sendout: "Sendout") -> Iterator[str]:
    """Yield the mails that were not sent, and the most important other fact, such as missing codes."""
    counts = {"refused": sendout.refused, "uncertain": sendout.uncertain, "cancelled": sendout.cancelled}
    yield from (f"{amount(number)} {what}" for what, number in counts.items() if number)
    if sendout.stall:
        yield sendout.stall
    elif sendout.waiting:
        yield sendout.waiting
    elif sendout.not_resumed:
        yield f"not resumed: {sendout.not_resumed}"
    elif sendout.resumable:
        yield next_step(sendout)
    elif sendout.state == SendoutState.INTERRUPTED:
        yield from (f"{each.name}: {amount(each.missing)} missing" for each in sendout.lists if each.missing)
    elif sendout.waiting_reason:
        yield f"waiting: {sendout.waiting_reason}"
    elif sendout.reason:
        yield sendout.reason
    elif start := format_start(sendout):
        yield start
    elif speed := format_speed(sendout):
        yield speed
