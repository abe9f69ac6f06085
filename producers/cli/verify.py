"""`coupons verify`: the invariants of the database."""

import click

from producers.cli.output import as_json, emit_json, mark
from producers.cli.runtime import FAILED, asynchronous, database


@click.command()
@as_json
@asynchronous
async def verify(json_output: bool) -> int | None:
    """Check all database invariants.

    Prints one line per invariant, with the rows that violate it. Exit code 1 if there are any.
    """
    from coupons.store import invariants

    async with database() as connection:
        proved = await invariants.check(connection)
    if json_output:
        emit_json(proved)
    else:
        for proof in proved:
            click.echo(f"{mark(proof.ok)} {proof.sentence}")
            for offender in proof.violations:
                click.echo(f"    {', '.join(f'{name}={value}' for name, value in offender.items())}")
    return None if all(proof.ok for proof in proved) else FAILED
