"""`coupons who` for the service desk, `coupons verify` for everybody who wants proof."""

from typing import TYPE_CHECKING

import click

from producers.cli.output import as_json, emit_json, emit_table
from producers.cli.runtime import FAILED, asynchronous, database

if TYPE_CHECKING:
    from coupons.store.lookup import Mail


@click.command()
@click.option("--email", help="Every mail to this address, with its codes.")
@click.option("--code", help="Whose this code is.")
@as_json
@asynchronous
async def who(email: str | None, code: str | None, json_output: bool) -> int | None:
    """Who got which code. Exit code 1 if nobody did."""
    from coupons.addresses import parse_address
    from coupons.store import lookup

    if (email is None) == (code is None):
        raise click.UsageError("give either --email or --code")
    async with database() as connection:
        if code is not None:
            owners = await lookup.owners_of(connection, code.strip())
            columns = {
                "LIST": lambda row: row.list or "(deleted)",
                "STATE": lambda row: row.state or "free",
                "ADDRESS": lambda row: row.address,
                "MESSAGE": lambda row: row.message,
                "SENDOUT": lambda row: row.sendout,
                "WHEN": lambda row: row.changed_at,
            }
            emit_json(owners) if json_output else emit_table(owners, columns, empty=f"no list has the code {code}")
            return None if owners else FAILED
        mails = await lookup.mails_to(connection, parse_address(email or "").key)
    columns = {
        "MESSAGE": lambda row: row.message,
        "STATE": lambda row: row.state,
        "CODES": lambda row: ", ".join(
            [f"{name}: {code}" for name, code in row.codes.items()]
            + [f"{name}: (deleted)" for name in row.deleted_lists]
        ),
        "WHEN": lambda row: row.changed_at,
        "SENDOUT": lambda row: row.sendout,
        "REPLY": _replies,
    }
    emit_json(mails) if json_output else emit_table(mails, columns, empty=f"no sendout has the address {email}")
    return None if mails else FAILED


def _replies(mail: "Mail") -> str | None:
    """Of one that was not simply taken, with every attempt."""
    if len(mail.answers) <= 1:
        return mail.reply
    return "; ".join(f"{each.attempt}. {each.outcome}: {each.reply}" for each in mail.answers)


@click.command()
@as_json
@asynchronous
async def verify(json_output: bool) -> int | None:
    """Prove by queries alone that the books are right; exit code 1 and the offending rows if not."""
    from coupons.store import invariants

    async with database() as connection:
        proved = await invariants.prove(connection)
    if json_output:
        emit_json(proved)
    else:
        for proof in proved:
            click.echo(
                f"{click.style('✓', fg='green') if proof.holds else click.style('✗', fg='red')} {proof.sentence}"
            )
            for offender in proof.offenders:
                click.echo(f"    {', '.join(f'{name}={value}' for name, value in offender.items())}")
    return None if all(proof.holds for proof in proved) else FAILED
