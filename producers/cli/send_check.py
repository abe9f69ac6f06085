"""`coupons send --check`, the question before `coupons send`, and its warning: what a sendout would do, in numbers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from coupons.states import SendoutState, Shortage
from producers.cli.confirm import confirm, is_asked
from producers.cli.output import COLOURS, amount, counted, emit_json, emit_warnings, moment
from producers.cli.runtime import DONE, FAILED, INTERRUPTED, Failed, database
from producers.cli.sendout_text import describe_first
from producers.durations import format_limit

if TYPE_CHECKING:
    from coupons.commands import StartSendout
    from coupons.store.send_check import Audience, NeededList, Schedule, SendCheck

SKIP = "--skip-already-mailed leaves them out"
WOULD = {
    SendoutState.QUEUED: "be queued",
    SendoutState.SCHEDULED: "wait for its start",
    SendoutState.SENDING: "start sending now",
    SendoutState.INTERRUPTED: "be interrupted",
    SendoutState.FAILED: "fail",
}
"""What happens to a sendout that gets this state."""


async def report_check(command: "StartSendout", *, json_output: bool) -> int:
    """Print what the sendout would do, and return the exit code that `send --wait` has for it."""
    from coupons.store import send_check

    async with database() as connection:
        found = await send_check.check_sendout(connection, command)
    if json_output:
        emit_json(found)
    else:
        click.echo("\n".join(_describe(found, short=False)))
    return {SendoutState.INTERRUPTED: INTERRUPTED, SendoutState.FAILED: FAILED}.get(found.outcome.state, DONE)


async def check_before_sending(command: "StartSendout", *, yes: bool) -> None:
    """Check the command before it is published, and ask on a terminal. A repeated command is not checked again.

    Raises Conflict, PastStart, Failed, click.Abort.
    """
    from coupons.store import inbox, send_check

    async with database() as connection:
        if await inbox.is_repeated(connection, command):
            return
        if not is_asked(yes=yes):
            checked = await send_check.check_command(connection, command)
            if not command.skip_already_mailed:
                _warn(command, await send_check.count_already_mailed(connection, command, checked))
            return
        found = await send_check.check_sendout(connection, command)
    if found.outcome.state == SendoutState.FAILED:
        raise Failed(f"the sendout would fail: {found.outcome.reason}")
    confirm("Start this sendout?", _describe(found, short=True))


def _warn(command: "StartSendout", mailed: int | None) -> None:
    if mailed is None:
        emit_warnings(
            [f"counting who already got message {command.message} takes long: --check counts them, and {SKIP}"]
        )
    elif mailed:
        who = counted(mailed, "recipient")
        emit_warnings([f"{who} already got message {command.message}; {SKIP}"])


def _describe(found: "SendCheck", *, short: bool) -> Iterator[str]:
    """Yield one line per fact. A short description omits the numbers that are 0."""
    to = f"group {found.audience.group}" if found.audience.group else "inline recipients"
    yield f"message {found.message}, version {found.message_version}, from {found.sender}, to {to}"
    yield f"  {counted(found.audience.recipients, 'recipient')}"
    yield from (f"  {amount(number)} {what}" for number, what in _kinds(found.audience) if number or not short)
    yield from (f"  list {each.name}: {_codes(each)}" for each in found.lists)
    yield from (f"  {line}" for line in _pace(found.schedule))
    yield from (f"  {each} is not finished" for each in found.imports)
    if found.blocked:
        yield f"  {found.blocked}"
    reason = f": {found.outcome.reason}" if found.outcome.reason else ""
    yield f"the sendout would {click.style(WOULD[found.outcome.state], fg=COLOURS.get(found.outcome.state))}{reason}"


def _kinds(audience: "Audience") -> Iterator[tuple[int, str]]:
    how = "left out" if audience.left_out else SKIP
    yield audience.already_mailed, f"already got the message in another sendout ({how})"
    yield audience.code_holders, f"{_verb(audience.code_holders, 'hold')} a code of these lists from another sendout"
    lacked = ", ".join(f"{each.name}: {amount(each.recipients)}" for each in audience.lacked)
    which = f" ({lacked})" if lacked else ""
    yield audience.lacking, f"{_verb(audience.lacking, 'lack')} an attribute that the message needs{which}"
    has = "has" if audience.with_empty == 1 else "have"
    yield audience.with_empty, f"{has} an empty value of an attribute that the message needs"


def _verb(number: int, verb: str) -> str:
    return f"{verb}s" if number == 1 else verb


def _codes(of: "NeededList") -> str:
    text = " (these recipients get the alternative text)" if of.missing and of.shortage == Shortage.TEXT else ""
    return f"{amount(of.needed)} needed, {amount(of.available)} available, {amount(of.missing)} missing{text}"


def _pace(schedule: "Schedule") -> Iterator[str]:
    yield f"starts {moment(schedule.starts_at)}"
    if schedule.first:
        yield f"pauses after {describe_first(schedule.first)}"
    if schedule.per_hour and schedule.ends_at:
        what = "pauses" if schedule.first else "ends"
        yield f"at most {format_limit(schedule.per_hour)}: {what} about {moment(schedule.ends_at)}"
