"""What the command line prints about a sendout."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from coupons.states import SendoutState
from producers.cli.output import amount, coloured, counted, moment
from producers.durations import format_deferred, format_duration, format_limit, format_rate

if TYPE_CHECKING:
    from coupons.store.sendout_views import Sendout, SendoutList

STATES_BEFORE_ADMISSION = (SendoutState.QUEUED, SendoutState.PREPARING, SendoutState.INTERRUPTED)


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
