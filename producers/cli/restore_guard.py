"""`coupons restore-guard`: after a restore or failover, show which mails may have been sent since, unlock sending."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from producers.cli.confirm import require_terminal, yes_option
from producers.cli.group import Group
from producers.cli.output import amount, as_json, counted, emit_json, emit_table, mark, moment
from producers.cli.runtime import FAILED, asynchronous, database
from producers.durations import format_duration

if TYPE_CHECKING:
    from datetime import datetime

    from coupons.store.restore_guard import Since, State

SENDOUTS = {
    "SENDOUT": lambda row: row.id,
    "MESSAGE": lambda row: row.message,
    "STATE": lambda row: row.state,
    "RECIPIENTS": lambda row: row.recipients,
    "SENT": lambda row: row.sent,
    "UNCERTAIN": lambda row: row.uncertain,
    "REMAINING": lambda row: row.remaining,
}
LISTS = {"LIST": lambda row: row.name, "AVAILABLE": lambda row: row.available, "RESERVED": lambda row: row.reserved}
BEFORE = """\
Before you accept:
  - check the relay's log for mails sent since the backup
  - pause sendouts that must not continue (cancel them only after accepting, because that returns their codes)
  - remove already sent codes from their lists: coupons import FILE --list LIST --mode delete
  - repeat the imports made since the backup
Then run one of:
  coupons restore-guard accept
      Remaining mails are sent. Some recipients may get a second mail with another code.
  coupons restore-guard accept --uncertain
      Remaining mails of started sendouts become uncertain and keep their codes.
      Scheduled sendouts are paused."""


@click.group("restore-guard", cls=Group)
def restore_guard() -> None:
    """Unlock sending after a restore or failover.

    A restored database has no record of the mails that were sent after the backup, so workers send nothing from it
    until an operator accepts it.
    """


@restore_guard.command()
@as_json
@asynchronous
async def show(json_output: bool) -> int | None:
    """Show whether workers may send.

    If not, shows the mails that may have been sent since the backup, and exits with code 1.
    """
    from coupons.store import restore_guard

    async with database() as connection:
        found = await restore_guard.state(connection)
        since = await restore_guard.since(connection) if found.refusal else None
    if json_output:
        emit_json(_plain(found, since))
    else:
        _describe(found, since)
        if since:
            click.echo(BEFORE)
    return FAILED if found.refusal else None


@restore_guard.command()
@click.option("--uncertain", is_flag=True, help="Do not send the remaining mails of started sendouts. Mark them"
              " as uncertain with their codes; resolve them later with `coupons uncertain`.")  # fmt: skip
@yes_option
@as_json
@asynchronous
async def accept(uncertain: bool, yes: bool, json_output: bool) -> None:
    """Let workers send from this database.

    First shows which mails may have been sent since the backup, and asks for confirmation.
    """
    from coupons.store import restore_guard

    if not yes:
        require_terminal()
    async with database() as connection:
        found = await restore_guard.state(connection)
        since = await restore_guard.since(connection) if found.refusal else None
        if not json_output:
            _describe(found, since)
        if since and not yes:
            click.confirm(_question(since, uncertain=uncertain), abort=True, err=True)
        mails = await restore_guard.accept(connection, seen=found, uncertain=uncertain)
        accepted = await restore_guard.state(connection)
    if json_output:
        emit_json(_plain(accepted, since) | {"uncertain": mails})
    elif since:
        click.echo("database accepted: workers start sending within seconds")
        if uncertain:
            click.echo(
                f"{counted(mails, 'mail')} marked as uncertain; to count them as sent: coupons uncertain ID --accept"
            )


def _question(since: "Since", *, uncertain: bool) -> str:
    if uncertain:
        return "Mark the remaining mails of started sendouts as uncertain, and send all others?"
    return f"Send {counted(_remaining_mails(since), 'remaining mail')}, although some may have been sent already?"


def _describe(found: "State", since: "Since | None") -> None:
    if since is None:
        click.echo(f"{mark(ok=True)} the database is accepted: workers may send")
        return
    click.echo(f"{mark(ok=False)} not accepted, workers send nothing: {found.refusal}")
    for line in _reaches(found, since):
        click.echo(f"  {line}")
    click.echo(
        f"Mails that may have been sent since the backup: {amount(_remaining_mails(since))},"
        " plus all mails of sendouts started since"
    )
    emit_table(since.sendouts, SENDOUTS, empty="no unfinished sendouts")
    codes = sum(each.available + each.reserved for each in since.lists)
    click.echo(f"Unassigned codes that may have been sent since the backup: {amount(codes)}")
    emit_table(since.lists, LISTS, empty="no list has such codes")


def _remaining_mails(since: "Since") -> int:
    return sum(each.remaining or 0 for each in since.sendouts)


def _reaches(found: "State", since: "Since") -> Iterator[str]:
    if found.accepted_at:
        yield f"last accepted: {moment(found.accepted_at)}"
    yield f"last trace of a mail: {_ago(since.mails_until, since.now)}"
    yield f"last trace of a command or an import: {_ago(since.work_until, since.now)}"


def _ago(at: "datetime | None", now: "datetime") -> str:
    return f"{moment(at)}, {format_duration((now - at).total_seconds())} ago" if at else "none"


def _plain(found: "State", since: "Since | None") -> dict[str, object]:
    return {
        "accepted": found.refusal is None,
        "refusal": found.refusal,
        "number": found.number,
        "accepted_at": found.accepted_at,
        "since": since,
    }
