"""`coupons send`, `resume`, `pause`, `cancel`: commands that start and control sendouts."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import click

from coupons.states import SendoutState
from producers.cli.confirm import confirm, is_asked, yes_option
from producers.cli.imports import describe as describe_import
from producers.cli.job_id import JobId
from producers.cli.output import amount, as_json, counted, emit_json
from producers.cli.progress import Progress, check_timeout, follow, timeout_option
from producers.cli.runtime import DONE, FAILED, INTERRUPTED, NOT_ALL_MAILED, asynchronous, database, publish, settings
from producers.cli.schedule_options import over_option, per_hour_option, start_at_option
from producers.cli.send_check import check_before_sending, report_check
from producers.cli.sendout_text import describe, format_start, format_waiting, list_problems
from producers.cli.set_option import naming_the_remedy, parse_values
from producers.durations import format_rate

if TYPE_CHECKING:
    from coupons.commands import StartSendout
    from coupons.database import Connection
    from coupons.store.imports import ImportStatus
    from coupons.store.sendout_views import Sendout

IDLE_SECONDS = 5.0
"""How long to wait for the relay's replies; mails without one are then reported as in flight."""
POLL_SECONDS = 0.1


wait_option = click.option(
    "--wait", is_flag=True, help="Wait until the sendout ends or is interrupted, with a progress bar."
)
after_option = click.option(
    "--after", type=JobId("import"), multiple=True, metavar="ID", help="First wait until import ID has finished, even"
    " if no worker has received it yet; repeatable.")  # fmt: skip
sendout_id = click.argument("sendout", type=JobId("sendout"))


@click.command()
@click.option("--message", required=True, help="Message to send.")
@click.option("--group", help="Recipient group.")
@click.option("--to", "addresses", multiple=True, metavar="EMAIL", help="Recipient address instead of a group,"
              " repeatable.")  # fmt: skip
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Attribute of the recipients given with"
              " --to, repeatable.")  # fmt: skip
@start_at_option
@click.option("--now", is_flag=True, help="Start as soon as the sendout is prepared [default without --start-at].")
@per_hour_option
@over_option
@click.option("--first", type=click.IntRange(min=1), metavar="N", help="Mail N recipients, then pause; `coupons resume`"
              " mails the others.")  # fmt: skip
@click.option("--skip-already-mailed", is_flag=True, help="Leave out recipients who got this message in an earlier"
              " sendout.")  # fmt: skip
@after_option
@click.option("--auto-resume", is_flag=True, help="Resume automatically once enough codes are available.")
@click.option("--id", "id_", type=click.UUID, help="Idempotency key: repeating the command with the same id starts no"
              " second sendout.")  # fmt: skip
@click.option("--check", is_flag=True, help="Report what the sendout would do, and start nothing.")
@yes_option
@wait_option
@timeout_option
@as_json
@asynchronous
async def send(
    message: str, group: str | None, addresses: tuple[str, ...], values: tuple[str, ...], start_at: datetime | None,
    now: bool, per_hour: int | None, over_minutes: int | None, first: int | None, skip_already_mailed: bool,
    after: tuple[UUID, ...], auto_resume: bool, id_: UUID | None, check: bool, yes: bool, wait: bool,
    timeout_seconds: float | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Send a message to every recipient of a group.

    Each recipient gets codes of their own. If a list with shortage `pause` has too few codes, no mail is sent: the
    sendout is interrupted, and --wait exits with code 4. Import the missing codes and run `coupons resume`, or use
    --auto-resume.

    --wait exits with code 0 only if every recipient was mailed, with 5 if some mails were refused or are uncertain,
    and with 1 if none was mailed.

    Codes are reserved immediately, even for scheduled or throttled sendouts, so a shortage is reported right away. But
    a sendout first waits for unfinished imports into its group and lists, and for the imports named with --after.

    --check reports recipients, codes, recipients who got the message already, and start and end at the chosen pace. It
    exits with code 4 if codes are missing, and with 1 if the sendout would fail. On a terminal, `send` shows these
    numbers and asks.
    """
    from coupons.addresses import parse_address
    from coupons.commands import Recipient, StartSendout

    check_timeout(timeout_seconds, wait=wait)
    if (group is None) == (not addresses):
        raise click.UsageError("give exactly one of --group and --to")
    if per_hour and over_minutes:
        raise click.UsageError("give at most one of --per-hour and --over")
    if now and start_at:
        raise click.UsageError("give at most one of --now and --start-at")
    if values and group is not None:
        raise click.UsageError("--set needs --to: recipients of a group have the attributes of their import")
    if check and wait:
        raise click.UsageError("--check starts no sendout: omit --wait")
    given = parse_values(values)
    recipients = tuple(Recipient(email=parse_address(each).address, attributes=given) for each in addresses) or None
    command = StartSendout(
        message=message, group=group, recipients=recipients,
        start_at=start_at, per_hour=per_hour, over_minutes=over_minutes, auto_resume=auto_resume, after=after,
        first=first, skip_already_mailed=skip_already_mailed,
    )  # fmt: skip
    if id_:
        command = command.model_copy(update={"id": id_})
    await _check_activated(command)
    with naming_the_remedy():
        if check:
            return await report_check(command, json_output=json_output)
        await check_before_sending(command, yes=yes)
    await publish(command)
    if not wait:
        emit_json({"id": command.id}) if json_output else click.echo(command.id)
        return None
    return await follow_sendout(command.id, command.id, timeout_seconds=timeout_seconds, json_output=json_output)


async def _check_activated(command: "StartSendout") -> None:
    """Raise Conflict if the message prints coupons and the Coupon Manager is not activated, except for a repetition."""
    from coupons.store import activation, inbox

    if settings().activated:
        return
    async with database() as connection:
        if not await inbox.is_repeated(connection, command):
            await activation.check_command(connection, command, activated=False)


@click.command()
@sendout_id
@after_option
@wait_option
@timeout_option
@as_json
@asynchronous
async def resume(
    sendout: UUID, after: tuple[UUID, ...], wait: bool, timeout_seconds: float | None, json_output: bool
) -> int | None:
    """Resume an interrupted or paused sendout.

    An interrupted sendout starts if its lists now have enough codes. Otherwise it stays interrupted, and --wait exits
    with code 4. It first waits for unfinished imports into its group and lists. The other exit codes are those of
    `coupons send --wait`.
    """
    from coupons.commands import ResumeSendout
    from coupons.store import sendout_views, waits

    check_timeout(timeout_seconds, wait=wait)
    async with database() as connection:
        sendout_views.check_resumable(await sendout_views.get(connection, sendout))
        await waits.check_after(connection, after)
    command = ResumeSendout(sendout=sendout, after=after)
    await publish(command)
    if not wait:
        requested = {"id": command.id, "sendout": sendout}
        emit_json(requested) if json_output else click.echo(f"resume of {sendout} requested")
        return None
    return await follow_sendout(sendout, command.id, timeout_seconds=timeout_seconds, json_output=json_output)


@click.command()
@sendout_id
@asynchronous
async def pause(sendout: UUID) -> None:
    """Pause a sendout.

    Stops sending, and reports how many mails were already handed to the relay. Continue it with `coupons resume`.
    """
    from coupons.store import sendouts

    async with database() as connection:
        await sendouts.pause(connection, sendout, "paused by an operator")
        await _report_handed_over(connection, sendout)


@click.command()
@click.argument("id_", metavar="ID", type=JobId("sendout", "import"))
@yes_option
@asynchronous
async def cancel(id_: UUID, yes: bool) -> None:
    """Cancel a sendout or an import for good.

    A sendout stops, its unused codes become available again, and the report shows how many mails were already handed to
    the relay. An import keeps the lines that it has already committed. On a terminal, the command first shows these
    numbers and asks.
    """
    from coupons.store import imports, sendouts

    async with database() as connection:
        job = await imports.find(connection, id_)
        if is_asked(yes=yes):
            facts = _describe_import_cancel(job) if job else await _describe_cancel(connection, id_)
            confirm(f"Cancel this {'import' if job else 'sendout'}?", facts)
        if job:
            await imports.cancel(connection, id_)
            describe_import(await imports.get(connection, id_))
            return
        await sendouts.cancel(connection, id_)
        await _report_handed_over(connection, id_)


def _describe_import_cancel(job: "ImportStatus") -> Iterator[str]:
    yield f"import {job.id} into {job.target} is {job.state}"
    yield f"  {counted(job.lines, 'line')} already processed; the other lines are not imported"


async def _describe_cancel(connection: "Connection", sendout_id: UUID) -> Iterator[str]:
    """Return what a cancellation would do. Raises Conflict if the sendout does not exist."""
    from coupons.store import sendout_views, sendouts

    sendout = await sendout_views.get(connection, sendout_id)
    codes = await sendouts.count_returning_codes(connection, sendout_id)
    return iter((
        f"sendout {sendout.id} is {sendout.state}: {sendout.message} to {sendout.group or 'inline recipients'}",
        f"  {counted(sendout.handed_over, 'mail')} already handed to the relay",
        f"  {counted(sendout.remaining - sendout.in_flight, 'mail')} will not be sent",
        *(f"  {counted(number, 'code')} of list {name} return to the list" for name, number in codes.items()),
    ))  # fmt: skip


async def _report_handed_over(connection: "Connection", sendout_id: UUID) -> None:
    sendout = await _wait_until_idle(connection, sendout_id)
    waiting = f" ({amount(sendout.in_flight)} awaiting a reply)" if sendout.in_flight else ""
    click.echo(
        f"sendout {sendout.id} is {sendout.state}: {amount(sendout.handed_over)} of "
        f"{counted(sendout.recipients, 'mail')} already handed to the relay{waiting}"
    )


async def _wait_until_idle(connection: "Connection", sendout_id: UUID) -> "Sendout":
    """Return the sendout once no worker holds a batch of it, so that its counts are final, or after IDLE_SECONDS."""
    from coupons.store import sendout_views

    for _ in range(round(IDLE_SECONDS / POLL_SECONDS)):
        sendout = await sendout_views.get(connection, sendout_id)
        if not (sendout.in_flight or sendout.leased_batches):
            return sendout
        await asyncio.sleep(POLL_SECONDS)
    return await sendout_views.get(connection, sendout_id)


async def follow_sendout(
    sendout_id: UUID, command_id: UUID | None = None, *, timeout_seconds: float | None, json_output: bool
) -> int:
    """Wait for the end, print the sendout, and return the exit code. The command is awaited first if it is given."""
    from coupons.store import inbox, sendout_views

    async with database() as connection:

        async def look() -> "Sendout | None":
            is_known = command_id is None or await inbox.is_known(connection, command_id)
            return await sendout_views.find(connection, sendout_id) if is_known else None

        sendout = await follow(
            look,
            _progress_of,
            title="sending",
            timeout_seconds=timeout_seconds,
            again=f"coupons show {sendout_id} --wait",
        )
    if json_output:
        emit_json(sendout)
        for line in list_problems(sendout):
            click.echo(line, err=True)
    else:
        describe(sendout)
    return exit_code(sendout)


def exit_code(sendout: "Sendout") -> int:
    """Return the exit code of each command that waits for a sendout (docs/reference/exit-codes.md)."""
    match sendout.state:
        case SendoutState.FINISHED:
            return _mailed(sendout, sendout.recipients)
        case SendoutState.PAUSED if sendout.is_first_mailed:
            return _mailed(sendout, sendout.first)
        case SendoutState.INTERRUPTED:
            return INTERRUPTED
        case _:
            return FAILED


def _mailed(sendout: "Sendout", recipients: int | None) -> int:
    if sendout.sent == recipients:
        return DONE
    return NOT_ALL_MAILED if sendout.sent or sendout.uncertain else FAILED


def _progress_of(sendout: "Sendout") -> Progress:
    total = sendout.recipients
    state = sendout.stall or sendout.waiting or sendout.waiting_reason or format_start(sendout) or sendout.state
    done = (total or 0) - sendout.remaining
    return Progress(
        done, total, ", ".join(filter(None, (format_waiting(sendout), state))), ended=sendout.ended,
        amount="" if total is None else f"{amount(done)} of {counted(total, 'mail')}",
        rate=format_rate(sendout.per_second) if sendout.per_second else "", seconds_left=sendout.seconds_left,
    )  # fmt: skip
