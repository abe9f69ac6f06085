"""`coupons uncertain`: mails that may or may not have been sent, and what an operator decides about them."""

from typing import TYPE_CHECKING, Literal
from uuid import UUID

import click

from producers.cli.confirm import confirm, is_asked, yes_option
from producers.cli.job_id import JobId
from producers.cli.output import as_json, counted, emit_csv, emit_json, emit_table
from producers.cli.runtime import FAILED, asynchronous, database

if TYPE_CHECKING:
    from coupons.store.uncertain import UncertainMail

COLUMNS = {
    "ADDRESS": lambda row: row.address,
    "ATTEMPTS": lambda row: row.attempts,
    "WHEN": lambda row: row.changed_at,
    "REPLY": lambda row: row.reply,
}


@click.command()
@click.argument("sendout", type=JobId("sendout"))
@click.option("--resend", is_flag=True, help="Send them again, with the same codes and Message-ID.")
@click.option("--accept", is_flag=True, help="Count them as sent.")
@click.option("--email", "emails", multiple=True, metavar="EMAIL", help="Only mails to this address, repeatable.")
@yes_option
@click.option("--csv", "csv_output", is_flag=True, help="Print CSV instead of text.")
@as_json
@asynchronous
async def uncertain(
    sendout: UUID, resend: bool, accept: bool, emails: tuple[str, ...], yes: bool, csv_output: bool, json_output: bool
) -> int | None:  # fmt: skip
    """List or resolve mails without a final reply from the relay.

    Such a mail may or may not have been sent. Until it is resolved, it is not sent again, and its codes stay assigned
    to the recipient. --resend sends it again: a recipient may then get the mail twice, but always with the same code.
    --accept counts it as sent. With COUPONS_UNCERTAIN_POLICY=resend or accept, workers resolve such mails
    automatically.
    """
    from coupons.addresses import parse_address

    keys = {parse_address(each).key for each in emails} or None
    if resend + accept + csv_output > 1:
        raise click.UsageError("give at most one of --resend, --accept and --csv")
    if not (resend or accept):
        await _list(sendout, keys, csv_output=csv_output, json_output=json_output)
        return None
    if resend and is_asked(yes=yes):
        whom = f"to {counted(len(keys), 'address', 'addresses')} " if keys else ""
        question = f"Send all uncertain mails {whom}again? Some recipients may receive the mail twice."
        confirm(question)
    return await _resolve(sendout, "resend" if resend else "accept", keys, json_output=json_output)


async def _list(sendout_id: UUID, keys: set[str] | None, *, csv_output: bool, json_output: bool) -> None:
    from coupons.addresses import parse_address
    from coupons.store import sendout_views, uncertain

    async with database() as connection:
        await sendout_views.get(connection, sendout_id)
        found = uncertain.iter_mails(connection, sendout_id)
        chosen = (each async for each in found if keys is None or parse_address(each.address).key in keys)
        if csv_output:
            await emit_csv(chosen, {name.lower(): column for name, column in COLUMNS.items()})
            return
        mails: list[UncertainMail] = [each async for each in chosen]
    emit_json(mails) if json_output else emit_table(mails, COLUMNS, empty="no uncertain mails")


async def _resolve(
    sendout_id: UUID, resolution: Literal["resend", "accept"], keys: set[str] | None, *, json_output: bool
) -> int | None:
    """Resolve the mails, and return exit code 1 if one of the given addresses has no uncertain mail."""
    from coupons.store import uncertain

    async with database() as connection:
        count = await uncertain.resolve(connection, sendout_id, resolution, address_keys=keys)
    if json_output:
        emit_json({"sendout": sendout_id, "resolution": resolution, "mails": count})
    else:
        done = "queued for resending" if resolution == "resend" else "counted as sent"
        click.echo(f"sendout {sendout_id}: {counted(count, 'mail')} {done}")
    return FAILED if keys and count < len(keys) else None
