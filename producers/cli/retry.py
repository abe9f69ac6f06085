"""`coupons retry`: send refused or deferred mails again, also to corrected addresses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import click

from coupons.states import SendoutState, Shortage
from producers.cli.confirm import confirm, is_asked, yes_option
from producers.cli.output import amount, as_json, counted, emit_json
from producers.cli.progress import check_timeout, timeout_option
from producers.cli.runtime import TooFewCodes, asynchronous, database
from producers.cli.sendouts import follow_sendout, sendout_id, wait_option

if TYPE_CHECKING:
    from coupons.store.retries import Choice, Retry


class OldAndNew(click.ParamType[tuple[str, str]]):
    """Two addresses. The part of an address before the @ may contain equals signs."""

    name = "addresses"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        local_part, at, rest = value.partition("@")
        domain, equals, new = rest.partition("=")
        if not (at and equals):
            self.fail(f"{value!r} is not OLD=NEW: write ada@exmaple.org=ada@example.org", param, ctx)
        return f"{local_part}@{domain}", new


@click.command()
@sendout_id
@click.option("--refused", is_flag=True, help="Retry all refused mails [default without --deferred and --address].")
@click.option("--deferred", is_flag=True, help="Retry all deferred mails now, not at their due times.")
@click.option("--address", "corrections", type=OldAndNew(), multiple=True, metavar="OLD=NEW", help="Send the refused or"
              " deferred mail to OLD to the address NEW instead, repeatable. The group is not changed.")  # fmt: skip
@yes_option
@wait_option
@timeout_option
@as_json
@asynchronous
async def retry(
    sendout: UUID, refused: bool, deferred: bool, corrections: tuple[tuple[str, str], ...], yes: bool, wait: bool,
    timeout_seconds: float | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Send refused or deferred mails of a sendout again.

    No relay has accepted these mails, so no recipient gets a mail twice. The codes of refused mails went back to their
    lists. So codes are reserved again, of all lists or of none: if a list has too few, nothing is changed, and the exit
    code is 4. A deferred mail keeps its codes. A finished sendout is sending again. A paused one stays paused until
    `coupons resume`.
    """
    from coupons.addresses import parse_address
    from coupons.store.retries import Choice, Correction

    check_timeout(timeout_seconds, wait=wait)
    parsed = tuple(Correction(parse_address(old), parse_address(new)) for old, new in corrections)
    choice = Choice.of(refused=refused, deferred=deferred, corrections=parsed)
    if is_asked(yes=yes) and not await _confirm(sendout, choice):
        return None
    done = await _retry(sendout, choice)
    if not wait:
        emit_json(done) if json_output else click.echo("\n".join(_describe(done)))
        return None
    if not json_output:
        click.echo("\n".join(_describe(done)), err=True)
    return await follow_sendout(sendout, timeout_seconds=timeout_seconds, json_output=json_output)


async def _confirm(sendout_id: UUID, choice: "Choice") -> bool:
    """Show how many mails will be retried and the codes that they need, and ask. Return False if there are none."""
    from coupons.store import retries

    async with database() as connection:
        with _exit_4():
            shown = await retries.preview(connection, sendout_id, choice)
    if not shown.mails:
        click.echo(f"sendout {sendout_id}: {_mails(shown)} to retry")
        return False
    confirm(f"Send {_mails(shown)} again?", _codes(shown))
    return True


async def _retry(sendout_id: UUID, choice: "Choice") -> "Retry":
    from coupons.store import retries

    async with database() as connection:
        with _exit_4():
            return await retries.retry(connection, sendout_id, choice)


@contextmanager
def _exit_4() -> Iterator[None]:
    """Let the command exit with code 4 if a list has too few codes."""
    from coupons.store.retries import NotEnoughCodes

    try:
        yield
    except NotEnoughCodes as error:
        raise TooFewCodes(str(error)) from None


def _describe(done: "Retry") -> Iterator[str]:
    yield f"sendout {done.sendout}: {_mails(done)} queued for retrying"
    yield from _codes(done)
    if done.state == SendoutState.PAUSED:
        yield f"  the sendout is paused: continue it with `coupons resume {done.sendout}`"


def _mails(of: "Retry") -> str:
    """Return `2 refused mails`, `1 refused and 3 deferred mails`, with the number of corrected addresses."""
    kinds = {"refused": of.refused, "deferred": of.deferred}
    shown = [f"{amount(number)} {kind}" for kind, number in kinds.items() if number] or ["no"]
    corrected = f" ({counted(of.corrected, 'corrected address', 'corrected addresses')})" if of.corrected else ""
    return f"{' and '.join(shown)} {'mail' if of.mails == 1 else 'mails'}{corrected}"


def _codes(of: "Retry") -> Iterator[str]:
    for each in of.lists:
        without = f", {amount(each.missing)} get the alternative text" if each.shortage == Shortage.TEXT else ""
        yield (f"  list {each.name}: {counted(each.needed, 'code')} needed, {amount(each.available)} available"
               f"{without if each.missing else ''}")  # fmt: skip
