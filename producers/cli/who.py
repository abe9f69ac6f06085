"""`coupons who`: who got which code."""

from typing import TYPE_CHECKING
from uuid import UUID

import click

from producers.cli.job_id import JobId
from producers.cli.output import as_json, emit_json, emit_next, emit_table, limit_option
from producers.cli.runtime import FAILED, asynchronous, database

if TYPE_CHECKING:
    from coupons.store.lookup import Mail


def _replies(mail: "Mail") -> str | None:
    """Return the relay's reply or, after several attempts, the reply to each attempt."""
    if len(mail.answers) <= 1:
        return mail.reply
    return "; ".join(f"{each.attempt}. {each.outcome}: {each.reply}" for each in mail.answers)


CODE_COLUMNS = {
    "LIST": lambda row: row.list or "(deleted)",
    "CODE": lambda row: row.code,
    "STATE": lambda row: row.state or "available",
    "ADDRESS": lambda row: row.address,
    "MESSAGE": lambda row: row.message,
    "SENDOUT": lambda row: row.sendout,
    "WHEN": lambda row: row.changed_at,
}
MAIL_COLUMNS = {
    "MESSAGE": lambda row: row.message,
    "STATE": lambda row: row.state,
    "CODES": lambda row: ", ".join(
        [f"{name}: {code}" for name, code in row.codes.items()] + [f"{name}: (deleted)" for name in row.deleted_lists]
    ),
    "WHEN": lambda row: row.changed_at,
    "SENDOUT": lambda row: row.sendout,
    "REPLY": _replies,
}


@click.command()
@click.option("--email", help="Show every mail to this address, with its codes.")
@click.option("--code", help="Show the recipient of this code.")
@limit_option(100)
@click.option("--before", type=JobId("sendout"), metavar="ID", help="With --email: show only mails of sendouts that are"
              " older than sendout ID.")  # fmt: skip
@as_json
@asynchronous
async def who(
    email: str | None, code: str | None, limit: int, before: UUID | None, json_output: bool
) -> int | None:  # fmt: skip
    """Show who got which code.

    Exits with code 1 if nothing was found.
    """
    from coupons.addresses import parse_address
    from coupons.paging import cut
    from coupons.store import lookup

    if (email is None) == (code is None):
        raise click.UsageError("give exactly one of --email and --code")
    async with database() as connection:
        if code is not None:
            owners = await lookup.list_owners(connection, code.strip())
            emit_json(owners) if json_output else emit_table(owners, CODE_COLUMNS, empty=f"no list has the code {code}")
            return None if owners else FAILED
        rows = await lookup.list_mails(connection, parse_address(email or "").key, limit=limit + 1, before=before)
    mails, last = cut(rows, limit)
    if last:
        emit_next("who", "--email", email, "--limit", limit, "--before", last.sendout)
    emit_json(mails) if json_output else emit_table(mails, MAIL_COLUMNS, empty=f"no sendout has the address {email}")
    return None if mails else FAILED
