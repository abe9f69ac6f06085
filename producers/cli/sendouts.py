"""`coupons send`, `resume`, `pause`, `cancel`."""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from coupons.states import SendoutState
from producers.cli.imports import describe as describe_import
from producers.cli.outbox import describe, starts_later
from producers.cli.output import amount, as_json, emit_json
from producers.cli.progress import Progress, follow
from producers.cli.runtime import FAILED, INTERRUPTED, asynchronous, database, publish
from producers.durations import parse_minutes

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.store.sendout_views import Sendout

IN_HAND_SECONDS = 5.0
"""A relay answers within that; if not, it is said how many mails it has not answered for."""
LOOK_SECONDS = 0.1


class Moment(click.ParamType[datetime]):
    """ISO 8601; without a zone it is this machine's."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            at = datetime.fromisoformat(value)
            return at if at.tzinfo else at.astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: write 2026-03-01T09:00, or with a zone 2026-03-01T09:00+01:00", param, ctx
            )


class Minutes(click.ParamType[int]):
    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from coupons.commands import MAX_MINUTES

        minutes = parse_minutes(value)
        if minutes is None or minutes > MAX_MINUTES:
            self.fail(f"{value!r}: write 90m, 4h, 1h30m or 2d, at most {MAX_MINUTES // 24 // 60}d", param, ctx)
        return minutes


wait_option = click.option("--wait", is_flag=True, help="Follow the sendout until it ends or is interrupted.")
sendout_id = click.argument("sendout", type=click.UUID)


@click.command()
@click.option("--message", required=True, help="What is mailed.")
@click.option("--group", help="Who is mailed: a group …")
@click.option("--to", "addresses", multiple=True, metavar="EMAIL", help="… or these addresses.")
@click.option("--start-at", type=Moment(), metavar="TIME", help="Mail nobody before: 2026-03-01T09:00 by this machine's"
              " clock, or with a zone, …+01:00 or …Z. What is past means now.")  # fmt: skip
@click.option("--per-hour", type=click.IntRange(min=1), metavar="N", help="Mail at most so many an hour, evenly.")
@click.option("--over", "over_minutes", type=Minutes(), metavar="DURATION", help="Instead: spread the mails evenly over"
              " 90m, 4h, 2d …")  # fmt: skip
@click.option("--auto-resume", is_flag=True, help="If it is interrupted: resume it by itself, once its lists"
              " have enough codes.")  # fmt: skip
@click.option("--id", "id_", type=click.UUID, help="The command's id; the same id again is the same sendout.")
@wait_option
@as_json
@asynchronous
async def send(
    message: str, group: str | None, addresses: tuple[str, ...], start_at: datetime | None, per_hour: int | None,
    over_minutes: int | None, auto_resume: bool, id_: UUID | None, wait: bool, json_output: bool,
) -> int | None:  # fmt: skip
    """Mail a message to everybody of a group, each with a code of their own.

    If a list that pauses on shortage has too few codes, nobody is mailed, the sendout is interrupted, and --wait ends
    with exit code 4; import the missing codes and `coupons resume` it, or let it resume by itself.

    A sendout that starts later, or takes its time, is promised all its codes at once: if there are too few, it shows
    today.
    """
    from coupons.addresses import parse_address
    from coupons.commands import Recipient, StartSendout
    from coupons.store import inbox, sendouts

    if (group is None) == (not addresses):
        raise click.UsageError("give either --group or --to")
    if per_hour and over_minutes:
        raise click.UsageError("give at most one of --per-hour and --over")
    recipients = tuple(Recipient(email=parse_address(each).address) for each in addresses) or None
    command = StartSendout(
        message=message, group=group, recipients=recipients,
        start_at=start_at, per_hour=per_hour, over_minutes=over_minutes, auto_resume=auto_resume,
    )  # fmt: skip
    if id_:
        command = command.model_copy(update={"id": id_})
    async with database() as connection:
        if not await inbox.is_repeated(connection, command):
            await sendouts.check(connection, command)
    await publish(command)
    if not wait:
        emit_json({"id": command.id}) if json_output else click.echo(command.id)
        return None
    return await _follow(command.id, command.id, json_output=json_output)


@click.command()
@sendout_id
@wait_option
@as_json
@asynchronous
async def resume(sendout: UUID, wait: bool, json_output: bool) -> int | None:
    """Send an interrupted sendout, now that its lists have enough codes, or a paused one."""
    from coupons.commands import ResumeSendout
    from coupons.store import sendout_views

    async with database() as connection:
        sendout_views.check_resumable(await sendout_views.named(connection, sendout))
    command = ResumeSendout(sendout=sendout)
    await publish(command)
    if not wait:
        requested = {"id": command.id, "sendout": sendout}
        emit_json(requested) if json_output else click.echo(f"resume of {sendout} requested")
        return None
    return await _follow(sendout, command.id, json_output=json_output)


@click.command()
@sendout_id
@asynchronous
async def pause(sendout: UUID) -> None:
    """Hand over no more mails, and say how many were. `coupons resume` goes on."""
    from coupons.store import sendouts

    async with database() as connection:
        await sendouts.pause(connection, sendout, "paused by an operator")
        await _tell_handed_over(connection, sendout)


@click.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@asynchronous
async def cancel(id_: UUID) -> None:
    """End a sendout or an import for good.

    Of a sendout it is said how many were mailed; codes of all others return to their lists. Of an import, what was
    committed until then stays.
    """
    from coupons.store import imports, sendouts

    async with database() as connection:
        if await imports.find(connection, id_):
            await imports.cancel(connection, id_)
            describe_import(await imports.named(connection, id_))
            return
        await sendouts.cancel(connection, id_)
        await _tell_handed_over(connection, id_)


async def _tell_handed_over(connection: "Connection", sendout_id: UUID) -> None:
    sendout = await _with_empty_hands(connection, sendout_id)
    unanswered = (
        f", {amount(sendout.in_flight)} of them still at the relay without its answer" if sendout.in_flight else ""
    )
    click.echo(
        f"sendout {sendout.id} is {sendout.state}: {amount(sendout.handed_over)} of {amount(sendout.recipients)} mails "
        f"had been handed over{unanswered}"
    )


async def _with_empty_hands(connection: "Connection", sendout_id: UUID) -> "Sendout":
    """The sendout once no worker is at it, whose flush might add to it; after some seconds as it is."""
    from coupons.store import sendout_views

    for _ in range(round(IN_HAND_SECONDS / LOOK_SECONDS)):
        sendout = await sendout_views.named(connection, sendout_id)
        if not (sendout.in_flight or sendout.leased_batches):
            return sendout
        await asyncio.sleep(LOOK_SECONDS)
    return await sendout_views.named(connection, sendout_id)


async def _follow(id_: UUID, command_id: UUID, *, json_output: bool) -> int | None:
    from coupons.store import inbox, sendout_views

    async with database() as connection:

        async def look() -> "Sendout | None":
            return await sendout_views.find(connection, id_) if await inbox.is_known(connection, command_id) else None

        sendout = await follow(look, _progress, title="sending")
    emit_json(sendout) if json_output else describe(sendout)
    match sendout.state:
        case SendoutState.FINISHED:
            return None
        case SendoutState.INTERRUPTED:
            return INTERRUPTED
        case _:
            return FAILED


def _progress(sendout: "Sendout") -> Progress:
    total = sendout.recipients
    return Progress(
        (total or 0) - sendout.remaining, total, sendout.waiting_reason or starts_later(sendout) or sendout.state,
        ended=sendout.ended, per_second=sendout.per_second, seconds_left=sendout.seconds_left,
    )  # fmt: skip
