"""`coupons epoch`: data that went back in time, and whether they may be sent from."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from producers.cli.output import amount, as_json, emit_json, emit_table, moment
from producers.cli.runtime import FAILED, asynchronous, database
from producers.durations import format_duration

if TYPE_CHECKING:
    from datetime import datetime

    from coupons.store.restore_guard import Since, State

SENDOUTS = {
    "SENDOUT": lambda row: row.id,
    "MESSAGE": lambda row: row.message,
    "STATUS": lambda row: row.state,
    "RECIPIENTS": lambda row: row.recipients,
    "SENT": lambda row: row.sent,
    "UNCERTAIN": lambda row: row.uncertain,
    "OPEN": lambda row: row.open,
}
LISTS = {"LIST": lambda row: row.name, "FREE": lambda row: row.free, "PROMISED": lambda row: row.promised}
BEFORE = """\
Before you accept:
  - look into the relay's log for what was sent after these data end
  - pause sendouts that are not to go on; they can be cancelled only afterwards: to cancel gives codes back
  - take codes that were sent out of their lists: coupons import FILE --list LIST --mode delete
  - import again what came after these data end
Then one of:
  coupons epoch accept              open mails are sent, to some people again, then perhaps with other codes
  coupons epoch accept --uncertain  open mails of sendouts that had begun are uncertain and keep their codes"""


@click.group()
def epoch() -> None:
    """After a restored dump or a promoted replica: what may have been sent since, and that it may go on.

    Such data do not know what was sent after they end, so workers send nothing before a person has accepted them.
    """


@epoch.command()
@as_json
@asynchronous
async def show(json_output: bool) -> int | None:
    """Whether workers may send, and if not, what may have been sent since. Exit code 1 while they may not."""
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


@epoch.command()
@click.option("--uncertain", is_flag=True, help="Do not send open mails of sendouts that had begun: keep them, with"
              " their codes, for `coupons uncertain` to decide about.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@asynchronous
async def accept(uncertain: bool, yes: bool, json_output: bool) -> None:
    """Let workers send from these data. Shows first what may have been sent since they end, and asks."""
    from coupons.store import restore_guard

    if not (yes or sys.stdin.isatty()):
        raise click.UsageError("nobody can be asked here: give --yes")
    async with database() as connection:
        found = await restore_guard.state(connection)
        since = await restore_guard.since(connection) if found.refusal else None
        if not json_output:
            _describe(found, since)
        if since and not yes:
            click.confirm(_question(since, uncertain=uncertain), abort=True, err=True)
        held = await restore_guard.accept(connection, seen=found, uncertain=uncertain)
        accepted = await restore_guard.state(connection)
    if json_output:
        emit_json(_plain(accepted, since) | {"uncertain": held})
    elif since:
        click.echo(f"epoch {accepted.number} accepted: workers go on within seconds")
        if uncertain:
            click.echo(
                f"{amount(held)} mails are uncertain now: count them as sent with `coupons uncertain ID --accept`"
            )


def _question(since: "Since", *, uncertain: bool) -> str:
    if uncertain:
        return "Make open mails of sendouts that had begun uncertain, and send all others?"
    return f"Send {amount(_open_mails(since))} open mails, although some may have been sent already?"


def _describe(found: "State", since: "Since | None") -> None:
    if since is None:
        click.echo(f"{click.style('✓', fg='green')} epoch {found.number} is accepted: workers may send")
        return
    click.echo(f"{click.style('✗', fg='red')} not accepted, nothing is sent: {found.refusal}")
    for line in _reaches(found, since):
        click.echo(f"  {line}")
    click.echo(f"Mails that may have been sent since: {amount(_open_mails(since))}, and all of sendouts begun since")
    emit_table(since.sendouts, SENDOUTS, empty="no sendout is open")
    codes = sum(each.free + each.promised for each in since.lists)
    click.echo(f"Codes without an owner that somebody may have been sent since: {amount(codes)}")
    emit_table(since.lists, LISTS, empty="no list has such codes")


def _open_mails(since: "Since") -> int:
    return sum(each.open or 0 for each in since.sendouts)


def _reaches(found: "State", since: "Since") -> Iterator[str]:
    if found.accepted_at:
        yield f"epoch {found.number} was accepted at {moment(found.accepted_at)}"
    yield f"last trace of a mail: {_ago(since.mails_until, since.now)}"
    yield f"last trace of a command or an import: {_ago(since.work_until, since.now)}"


def _ago(at: "datetime | None", now: "datetime") -> str:
    return f"{moment(at)}, {format_duration((now - at).total_seconds())} ago" if at else "none"


def _plain(found: "State", since: "Since | None") -> dict[str, object]:
    return {
        "accepted": found.refusal is None,
        "refusal": found.refusal,
        "epoch": found.number,
        "accepted_at": found.accepted_at,
        "since": since,
    }
