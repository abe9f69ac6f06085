"""`coupons list …`: what a list is called, and what happens when it runs out."""

import click

from coupons.states import Shortage
from producers.cli.output import amount, as_json, emit_json, emit_table
from producers.cli.runtime import asynchronous, database

SHORTAGES = [each.value for each in Shortage]
SHORTAGE_HELP = "When codes run out: pause the whole sendout before anybody is mailed, or print the alternative text."


@click.group("list")
def lists() -> None:
    """Coupon lists: create, look, copy, archive, delete."""


@lists.command()
@click.argument("name")
@click.option("--description", default="", help="For people; at most 200 characters.")
@click.option(
    "--shortage", type=click.Choice(SHORTAGES), default=Shortage.PAUSE.value, show_default=True, help=SHORTAGE_HELP
)
@click.option(
    "--alternative-text", default="", help="Stands in for a code under --shortage text; at most 500 characters."
)
@click.option("--preview-text", help="Stands in for a code in previews and test mails.  [default: NAME_previewCoupon]")
@asynchronous
async def create(name: str, description: str, shortage: str, alternative_text: str, preview_text: str | None) -> None:
    """Create an empty list. Its name is kept in lower case and never changes, because messages hold it."""
    from coupons.names import parse_name
    from coupons.store import lists

    async with database() as connection:
        await lists.create(
            connection, parse_name(name), description=description, shortage=Shortage(shortage),
            alternative_text=alternative_text, preview_text=preview_text,
        )  # fmt: skip
    click.echo(f"list {parse_name(name)} created")


@lists.command()
@click.argument("name")
@click.option("--description", help="For people; at most 200 characters.")
@click.option("--shortage", type=click.Choice(SHORTAGES), help=SHORTAGE_HELP)
@click.option("--alternative-text", help="Stands in for a code under --shortage text; at most 500 characters.")
@click.option("--preview-text", help="Stands in for a code in previews and test mails.")
@asynchronous
async def change(
    name: str,
    description: str | None,
    shortage: str | None,
    alternative_text: str | None,
    preview_text: str | None,
) -> None:
    """Change a list's settings. An interrupted sendout sees them when it is resumed."""
    from coupons.names import parse_name
    from coupons.store import lists

    async with database() as connection:
        await lists.change(
            connection, parse_name(name), description=description,
            shortage=None if shortage is None else Shortage(shortage),
            alternative_text=alternative_text, preview_text=preview_text,
        )  # fmt: skip
    click.echo(f"list {parse_name(name)} changed")


@lists.command("ls")
@click.option("--archived", is_flag=True, help="Also those that are archived.")
@as_json
@asynchronous
async def ls(archived: bool, json_output: bool) -> None:
    """All lists with their coupons in numbers."""
    from coupons.store import lists

    async with database() as connection:
        found = await lists.all_of(connection, archived=archived)
    if json_output:
        emit_json(found)
        return
    columns = {
        "LIST": lambda row: row.name,
        "AVAILABLE": lambda row: row.available,
        "RESERVED": lambda row: row.reserved,
        "ASSIGNED": lambda row: row.assigned,
        "SENT": lambda row: row.sent,
        "TOTAL": lambda row: row.total,
        "SHORTAGE": lambda row: row.shortage,
        "DESCRIPTION": lambda row: row.description + (" (archived)" if row.archived_at else ""),
    }
    emit_table(found, columns, empty="no lists yet: coupons list create NAME")


@lists.command()
@click.argument("name")
@as_json
@asynchronous
async def show(name: str, json_output: bool) -> None:
    """One list: settings, numbers and its last imports."""
    from coupons.names import parse_name
    from coupons.store import imports, lists

    async with database() as connection:
        (found,) = await lists.named(connection, parse_name(name))
        jobs = await imports.of_list(connection, found.name)
    if json_output:
        emit_json([found, *jobs])
        return
    click.echo(f"list {found.name}{' (archived)' if found.archived_at else ''}  {found.description}".rstrip())
    click.echo(
        f"  {amount(found.total)} codes: {amount(found.available)} available, {amount(found.reserved)} reserved for "
        f"sendouts, {amount(found.assigned)} assigned to recipients, {amount(found.sent)} sent"
    )
    alternative = f': "{found.alternative_text}"' if found.alternative_text else ""
    click.echo(f"  shortage: {found.shortage}{alternative}")
    click.echo(f'  preview: "{found.preview_text}"')
    columns = {
        "IMPORT": lambda row: row.id,
        "MODE": lambda row: row.mode,
        "STATE": lambda row: row.state,
        "ADDED": lambda row: row.added,
        "REMOVED": lambda row: row.removed,
        "REJECTED": lambda row: row.rejected,
        "WHEN": lambda row: row.created_at,
    }
    emit_table(jobs, columns, empty="  no imports yet: coupons import FILE --list " + found.name)


@lists.command()
@click.argument("name")
@click.argument("new_name")
@asynchronous
async def copy(name: str, new_name: str) -> None:
    """A new, empty list with another one's settings. Codes are never copied."""
    from coupons.names import parse_name
    from coupons.store import lists

    async with database() as connection:
        await lists.copy(connection, parse_name(name), parse_name(new_name))
    click.echo(f"list {parse_name(new_name)} created")


@lists.command()
@click.argument("name")
@asynchronous
async def archive(name: str) -> None:
    """Take a list out of use; refused while a sendout needs it."""
    from coupons.names import parse_name
    from coupons.store import lists

    async with database() as connection:
        await lists.archive(connection, parse_name(name))
    click.echo(f"list {parse_name(name)} archived")


@lists.command()
@click.argument("name")
@asynchronous
async def restore(name: str) -> None:
    """Bring an archived list back."""
    from coupons.names import parse_name
    from coupons.store import lists

    async with database() as connection:
        await lists.restore(connection, parse_name(name))
    click.echo(f"list {parse_name(name)} restored")


@lists.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@asynchronous
async def delete(name: str, yes: bool) -> None:
    """Delete an archived list with its codes and its rejected lines.

    Codes that were sent stay known by their hash: no list takes them again, and `coupons who --code` says so. Messages
    that name the list cannot be sent until they are saved again; its sendouts stay in the outbox. The name is free.
    """
    from coupons.names import parse_name
    from coupons.store import lists

    async with database() as connection:
        (found,) = await lists.named(connection, parse_name(name))
        if not yes:
            click.confirm(
                f"{_kept(found.sent)}. Delete list {found.name} and its {amount(found.total)} codes?", abort=True
            )
        sent = await lists.delete(connection, found.name)
    click.echo(f"list {found.name} deleted. {_kept(sent)}.")


def _kept(sent: int) -> str:
    if not sent:
        return "No code of it was sent"
    return f"{amount(sent)} codes that were sent stay known by their hash and are never taken again"
