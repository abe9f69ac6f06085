"""`coupons group …`: groups of recipients."""

from typing import Any, BinaryIO
from uuid import UUID

import click

from coupons.states import ImportMode
from producers.cli.confirm import confirm_deletion, yes_option
from producers.cli.files import FileOrUrl, parse_format
from producers.cli.group import Group
from producers.cli.imports import import_options, run_import
from producers.cli.job_id import imports_before
from producers.cli.output import (
    IMPORT_COLUMNS,
    as_json,
    counted,
    emit_json,
    emit_next,
    emit_table,
    limit_option,
    moment,
)
from producers.cli.runtime import asynchronous, database


@click.group("group", cls=Group)
def groups() -> None:
    """Groups of recipients: import, show, delete."""


@groups.command("import")
@click.argument("file", type=FileOrUrl())
@click.option("--group", required=True, help="Group to import into; created if missing.")
@import_options
@asynchronous
async def import_file(
    file: BinaryIO | str, group: str, mode: str, format_fields: dict[str, Any], **options: Any
) -> int | None:
    """Import recipients from FILE into a group.

    This is `coupons import FILE --group GROUP`; see `coupons import --help`.
    """
    from coupons.names import parse_name

    return await run_import(
        file, group=parse_name(group), mode=ImportMode(mode), format_=parse_format(format_fields), **options
    )


@groups.command()
@as_json
@asynchronous
async def ls(json_output: bool) -> None:
    """List all groups with the attributes of their recipients."""
    from coupons.store import groups

    async with database() as connection:
        found = await groups.list_all(connection)
    if json_output:
        emit_json(found)
        return
    columns = {
        "GROUP": lambda row: row.name,
        "RECIPIENTS": lambda row: row.recipients,
        "ATTRIBUTES": lambda row: row.attributes,
    }
    emit_table(found, columns, empty="no groups yet: coupons group import FILE --group NAME")


@groups.command()
@click.argument("name")
@limit_option(20)
@imports_before
@as_json
@asynchronous
async def show(name: str, limit: int, before: UUID | None, json_output: bool) -> None:
    """Show a group's attributes, number of recipients and last imports."""
    from coupons.names import parse_name
    from coupons.paging import cut
    from coupons.store import groups, imports

    async with database() as connection:
        found = await groups.get(connection, parse_name(name))
        rows = await imports.list_for_group(connection, found.name, limit=limit + 1, before=before)
    jobs, last = cut(rows, limit)
    if last:
        emit_next("group show", f"'{found.name}'", "--limit", limit, "--before", last.id)
    if json_output:
        emit_json([found, *jobs])
        return
    click.echo(f"group {found.name}: {counted(found.recipients, 'recipient')}, created {moment(found.created_at)}")
    click.echo(f"  attributes: {', '.join(found.attributes) or 'none'}")
    emit_table(jobs, IMPORT_COLUMNS, empty=f"  no imports yet: coupons group import FILE --group {found.name}")


@groups.command()
@click.argument("name")
@yes_option
@asynchronous
async def delete(name: str, yes: bool) -> None:
    """Delete a group with its recipients and rejected lines.

    Sendouts and imports that have ended stay, with the group's name. Fails while an unfinished sendout or import uses
    the group. The name can be used for a new group.
    """
    from coupons.names import parse_name
    from coupons.store import groups

    async with database() as connection:
        found = await groups.get(connection, parse_name(name))
        confirm_deletion(f"Delete group {found.name} and its {counted(found.recipients, 'recipient')}?", yes=yes)
        deleted = await groups.delete(connection, found.name)
    click.echo(f"group {found.name} deleted, with {counted(deleted, 'recipient')}")
