"""`coupons verify`: the invariants of the database."""

import click

from producers.cli.output import as_json, emit_json, mark
from producers.cli.runtime import FAILED, asynchronous, database


@click.command()
@as_json
@asynchronous
async def verify(json_output: bool) -> int | None:
    """Check all database invariants.

    Prints one line per invariant, with the rows that violate it. Exits with code 1 if there are any.
    """
    from coupons.store import invariants

    async with database() as connection:
        checked = await invariants.check(connection)
    if json_output:
        emit_json(checked)
    else:
        for each in checked:
            click.echo(f"{mark(ok=each.ok)} {each.sentence}")
            for row in each.violations:
                click.echo(f"    {', '.join(f'{name}={value}' for name, value in row.items())}")
    return None if all(each.ok for each in checked) else FAILED
