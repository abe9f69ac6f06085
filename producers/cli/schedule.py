"""`coupons reschedule`: change the start or the pace of a sendout."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from coupons.states import SendoutState
from producers.cli.output import as_json, coloured, emit_json
from producers.cli.runtime import asynchronous, database
from producers.cli.schedule_options import over_option, per_hour_option, start_at_option
from producers.cli.sendout_text import format_pace, format_start
from producers.cli.sendouts import sendout_id

if TYPE_CHECKING:
    from coupons.store.sendout_views import Sendout


@click.command()
@sendout_id
@start_at_option
@click.option("--now", is_flag=True, help="Start now; a paused sendout is resumed.")
@per_hour_option
@over_option
@click.option("--no-limit", is_flag=True, help="Remove the rate limit of the sendout.")
@as_json
@asynchronous
async def reschedule(
    sendout: UUID, start_at: datetime | None, now: bool, per_hour: int | None, over_minutes: int | None,
    no_limit: bool, json_output: bool,
) -> None:  # fmt: skip
    """Change the start or the pace of a sendout.

    The sendout must be scheduled or paused: run `coupons pause` first if it is sending. A paused sendout stays paused
    until `coupons resume` or --now. --over spreads the mails that remain.

    Workers notice a new start within COUPONS_SWEEP_SECONDS.
    """
    from coupons.schedule import Reschedule
    from coupons.store import schedules, sendout_views

    if start_at and now:
        raise click.UsageError("give at most one of --start-at and --now")
    if sum(map(bool, (per_hour, over_minutes, no_limit))) > 1:
        raise click.UsageError("give at most one of --per-hour, --over and --no-limit")
    if not any((start_at, now, per_hour, over_minutes, no_limit)):
        raise click.UsageError("give at least one of --start-at, --now, --per-hour, --over and --no-limit")
    change = Reschedule(start_at=start_at, now=now, per_hour=per_hour, over_minutes=over_minutes, no_limit=no_limit)
    async with database() as connection:
        await schedules.reschedule(connection, sendout, change)
        changed = await sendout_views.get(connection, sendout)
    emit_json(changed) if json_output else click.echo("\n".join(_describe(changed)))


def _describe(sendout: "Sendout") -> Iterator[str]:
    yield f"sendout {sendout.id} is {coloured(sendout.state)}"
    if sendout.state == SendoutState.PAUSED:
        yield f"  continue it with `coupons resume {sendout.id}`, or now with `coupons reschedule {sendout.id} --now`"
    if start := format_start(sendout):
        yield f"  {start}"
    yield f"  {format_pace(sendout) or 'no rate limit'}"
