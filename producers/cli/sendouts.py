"""`coupons send`, `outbox`, `show`, `resume`, `pause`, `cancel`."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from producers.cli.following import Progress, follow
from producers.cli.imports import describe as describe_import
from producers.cli.output import amount, as_json, coloured, emit_json, emit_table
from producers.cli.session import FAILED, INTERRUPTED, Failed, asynchronous, database, publish

if TYPE_CHECKING:
    from coupons.store.outbox import Sendout, SendoutList

STATES = ["queued", "preparing", "interrupted", "sending", "paused", "finished", "cancelled", "failed"]
wait_option = click.option("--wait", is_flag=True, help="Follow the sendout until it ends or is interrupted.")
sendout_id = click.argument("sendout", type=click.UUID)


@click.command()
@click.option("--message", required=True, help="What is mailed.")
@click.option("--group", help="Who is mailed: a group …")
@click.option("--to", "addresses", multiple=True, metavar="EMAIL", help="… or these addresses.")
@click.option("--id", "id_", type=click.UUID, help="The command's id; the same id again is the same sendout.")
@wait_option
@as_json
@asynchronous
async def send(
    message: str, group: str | None, addresses: tuple[str, ...], id_: UUID | None, wait: bool, json_output: bool
) -> int | None:
    """Mail a message to everybody of a group, each with a code of their own.

    If a list that pauses on shortage has too few codes, nobody is mailed, the sendout is interrupted, and --wait ends
    with exit code 4; import the missing codes and `coupons resume` it.
    """
    from coupons.addresses import parse_address
    from coupons.commands import Recipient, StartSendout
    from coupons.store import inbox, sendouts

    if (group is None) == (not addresses):
        raise click.UsageError("give either --group or --to")
    recipients = tuple(Recipient(email=parse_address(each).address) for each in addresses) or None
    command = StartSendout(message=message, group=group, recipients=recipients)
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
@click.option("--status", type=click.Choice(STATES), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The newest ones.")
@as_json
@asynchronous
async def outbox(status: str | None, limit: int, json_output: bool) -> None:
    """All sendouts, newest first."""
    from coupons.store import outbox

    async with database() as connection:
        found = await outbox.newest(connection, state=status, limit=limit)
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
        "REMARKS": _remarks,
    }
    emit_table(found, columns, empty=f"no {status or ''} sendouts".replace("  ", " "))


def _remarks(sendout: "Sendout") -> str:
    """What is not as it should be: codes that are missing, mails that were not sent, why it stands still."""
    counts = {"refused": sendout.refused, "uncertain": sendout.uncertain, "cancelled": sendout.cancelled}
    remarks = [f"{amount(number)} {what}" for what, number in counts.items() if number]
    if sendout.state == "interrupted":
        remarks += [f"{each.name}: {amount(each.missing)} missing" for each in sendout.lists if each.missing]
    elif why := sendout.waiting or sendout.reason:
        remarks.append(why)
    return "; ".join(remarks)


@click.command()
@click.argument("id_", metavar="ID", type=click.UUID)
@click.option("--rejected", is_flag=True, help="Of an import: print the lines that were not taken as CSV.")
@as_json
@asynchronous
async def show(id_: UUID, rejected: bool, json_output: bool) -> None:
    """One sendout or import, with everything that is known about it."""
    from coupons.codes import rejections_csv
    from coupons.store import imports, outbox

    async with database() as connection:
        job = await imports.find(connection, id_)
        if job and rejected:
            for line in rejections_csv(await imports.rejections(connection, id_)):
                click.echo(line, nl=False)
            return
        if job:
            emit_json(job) if json_output else describe_import(job)
            return
        sendout = await outbox.find(connection, id_)
        if sendout is None:
            raise Failed(f"there is no sendout or import {id_}")
        problems = await outbox.problems(connection, id_)
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


@click.command()
@sendout_id
@wait_option
@as_json
@asynchronous
async def resume(sendout: UUID, wait: bool, json_output: bool) -> int | None:
    """Send an interrupted sendout, now that its lists have enough codes, or a paused one."""
    from coupons.commands import ResumeSendout
    from coupons.store import outbox

    async with database() as connection:
        outbox.check_resumable(await outbox.named(connection, sendout))
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
    """Hand over no more mails; those in hand are sent. `coupons resume` goes on."""
    from coupons.store import outbox, sendouts

    async with database() as connection:
        await sendouts.pause(connection, sendout, "paused by a person")
        describe(await outbox.named(connection, sendout))


@click.command()
@sendout_id
@asynchronous
async def cancel(sendout: UUID) -> None:
    """End a sendout for good; codes that nobody was sent return to their lists."""
    from coupons.store import outbox, sendouts

    async with database() as connection:
        await sendouts.cancel(connection, sendout)
        describe(await outbox.named(connection, sendout))


def describe(sendout: "Sendout") -> None:
    """A sendout in a few lines."""
    click.echo(
        f"sendout {sendout.id} {coloured(sendout.state)}: {sendout.message} to {sendout.group or 'given recipients'}"
    )
    counts = {
        "sent": sendout.sent,
        "refused": sendout.refused,
        "uncertain": sendout.uncertain,
        "cancelled": sendout.cancelled,
    }
    shown = ", ".join(f"{amount(number)} {what}" for what, number in counts.items() if number or what == "sent")
    click.echo(f"  {amount(sendout.recipients)} recipients: {shown}, {amount(sendout.open)} open")
    for each in sendout.lists:
        click.echo(f"  list {each.name}: {_needs(sendout.state, each)}")
    for why in filter(None, (sendout.waiting, sendout.reason if sendout.state != "interrupted" else None)):
        click.echo(f"  {why}")


def _needs(state: str, of: "SendoutList") -> str:
    if state == "interrupted":
        return f"{amount(of.needed)} needed, {amount(of.available)} available, {amount(of.missing)} missing"
    without = f", {amount(of.missing)} get the alternative text" if of.missing else ""
    return f"{amount(of.needed)} needed, {amount(of.promised)} held, {amount(of.sent)} sent{without}"


async def _follow(id_: UUID, command_id: UUID, *, json_output: bool) -> int | None:
    from coupons.store import inbox, outbox

    async with database() as connection:

        async def look() -> "Sendout | None":
            return await outbox.find(connection, id_) if await inbox.is_known(connection, command_id) else None

        sendout = await follow(look, _progress, title="sending")
    emit_json(sendout) if json_output else describe(sendout)
    match sendout.state:
        case "finished":
            return None
        case "interrupted":
            return INTERRUPTED
        case _:
            return FAILED


def _progress(sendout: "Sendout") -> Progress:
    total = sendout.recipients
    return Progress((total or 0) - sendout.open, total, sendout.waiting or sendout.state, ended=sendout.ended)
