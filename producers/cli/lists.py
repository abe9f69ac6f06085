"""`coupons list …`: coupon lists and their settings."""

from uuid import UUID

import click

from coupons.states import Shortage
from producers.cli.confirm import confirm_deletion, yes_option
from producers.cli.group import Group
from producers.cli.job_id import imports_before
from producers.cli.output import (
    IMPORT_COLUMNS,
    amount,
    as_json,
    counted,
    emit_json,
    emit_next,
    emit_table,
    emit_warnings,
    limit_option,
)
from producers.cli.runtime import asynchronous, database, require_activated

SHORTAGES = [each.value for each in Shortage]
DESCRIPTION_HELP = "Description (max. 200 characters)."
SHORTAGE_HELP = """\b
If a sendout needs more codes than are available:
pause: interrupt it before any mail is sent
text: print the alternative text instead of a code"""
ALTERNATIVE_TEXT_HELP = (
    "Printed instead of a code with --shortage text (max. 500 characters); may print attributes, as {{ first_name }}."
)
DECLARED_HELP = "Attribute that the alternative text may print although no group has it yet, repeatable."
SERVED_SHOWN = 20
CASE_SENSITIVE_HELP = "Codes of this list that differ only in case are different codes. This setting never changes."
PREVIEW_TEXT_HELP = "Printed instead of a code in previews and test mails."


@click.group("list", cls=Group)
def lists() -> None:
    """Coupon lists: create, show, copy, archive, delete."""


@lists.command()
@click.argument("name")
@click.option("--description", default="", help=DESCRIPTION_HELP)
@click.option("--shortage", type=click.Choice(SHORTAGES), default=Shortage.PAUSE.value,
              help=SHORTAGE_HELP.replace("is sent", "is sent (default)"))  # fmt: skip
@click.option("--alternative-text", default="", help=ALTERNATIVE_TEXT_HELP)
@click.option("--attribute", "attributes", multiple=True, metavar="NAME", help=DECLARED_HELP)
@click.option("--preview-text", help=f"{PREVIEW_TEXT_HELP}  [default: NAME_previewCoupon]")
@click.option("--case-sensitive", is_flag=True, help=CASE_SENSITIVE_HELP)
@asynchronous
async def create(
    name: str,
    description: str,
    shortage: str,
    alternative_text: str,
    attributes: tuple[str, ...],
    preview_text: str | None,
    case_sensitive: bool,
) -> None:
    """Create an empty list.

    The name is stored in lower case. It never changes, because messages refer to it.
    """
    from coupons.names import parse_name
    from coupons.store import lists

    require_activated(f"list {name} cannot be created")
    async with database() as connection:
        await lists.create(
            connection, parse_name(name), description=description, shortage=Shortage(shortage),
            alternative_text=alternative_text, preview_text=preview_text, case_sensitive=case_sensitive,
            declared=attributes,
        )  # fmt: skip
        (created,) = await lists.get(connection, parse_name(name))
    click.echo(f"list {created.name} created")
    emit_warnings(created.warnings)


@lists.command()
@click.argument("name")
@click.option("--description", help=DESCRIPTION_HELP)
@click.option("--shortage", type=click.Choice(SHORTAGES), help=SHORTAGE_HELP)
@click.option("--alternative-text", help=ALTERNATIVE_TEXT_HELP)
@click.option("--attribute", "attributes", multiple=True, metavar="NAME", help=DECLARED_HELP)
@click.option("--preview-text", help=PREVIEW_TEXT_HELP)
@asynchronous
async def change(
    name: str,
    description: str | None,
    shortage: str | None,
    alternative_text: str | None,
    attributes: tuple[str, ...],
    preview_text: str | None,
) -> None:
    """Change a list's settings.

    An interrupted sendout uses the new settings when it is resumed.
    """
    from coupons.names import parse_name
    from coupons.store import lists

    require_activated(f"list {name} cannot be changed")
    async with database() as connection:
        await lists.change(
            connection, parse_name(name), description=description,
            shortage=None if shortage is None else Shortage(shortage),
            alternative_text=alternative_text, preview_text=preview_text, declared=attributes,
        )  # fmt: skip
        (changed,) = await lists.get(connection, parse_name(name))
    click.echo(f"list {changed.name} changed")
    emit_warnings(changed.warnings)


@lists.command("ls")
@click.option("--archived", is_flag=True, help="Include archived lists.")
@as_json
@asynchronous
async def ls(archived: bool, json_output: bool) -> None:
    """List all coupon lists with their numbers of codes."""
    from coupons.store import lists

    async with database() as connection:
        found = await lists.list_all(connection, archived=archived)
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
        "CASE": lambda row: "sensitive" if row.case_sensitive else "ignored",
        "DESCRIPTION": lambda row: row.description + (" (archived)" if row.archived_at else ""),
    }
    emit_table(found, columns, empty="no lists yet: coupons list create NAME")


@lists.command()
@click.argument("name")
@limit_option(20)
@imports_before
@as_json
@asynchronous
async def show(name: str, limit: int, before: UUID | None, json_output: bool) -> None:
    """Show a list's settings, numbers of codes and last imports."""
    from coupons.names import parse_name
    from coupons.paging import cut
    from coupons.store import imports, lists

    async with database() as connection:
        (found,) = await lists.get(connection, parse_name(name))
        rows = await imports.list_for_list(connection, found.name, limit=limit + 1, before=before)
    jobs, last = cut(rows, limit)
    if last:
        emit_next("list show", f"'{found.name}'", "--limit", limit, "--before", last.id)
    if json_output:
        emit_json([found, *jobs])
        return
    emit_warnings(found.warnings)
    click.echo(f"list {found.name}{' (archived)' if found.archived_at else ''}  {found.description}".rstrip())
    click.echo(
        f"  {counted(found.total, 'code')}: {amount(found.available)} available, {amount(found.reserved)} reserved, "
        f"{amount(found.assigned)} assigned, {amount(found.sent)} sent"
    )
    alternative = f': "{found.alternative_text}"' if found.alternative_text else ""
    click.echo(f"  shortage: {found.shortage}{alternative}")
    click.echo(f'  preview: "{found.preview_text}"')
    click.echo(f"  case-sensitive: {'yes' if found.case_sensitive else 'no'}")
    emit_table(jobs, IMPORT_COLUMNS, empty="  no imports yet: coupons import FILE --list " + found.name)


@lists.command()
@click.argument("name", required=False)
@as_json
@asynchronous
async def duplicates(name: str | None, json_output: bool) -> None:
    """Show the duplicate codes that an upgrade has found.

    Since version 0.2, a code exists once in all lists. The upgrade removed duplicates from their lists, except codes
    that a second recipient may have got.
    """
    from coupons.names import parse_name
    from coupons.store import lists

    async with database() as connection:
        if name is not None:
            await lists.get(connection, parse_name(name))
        found = await lists.list_duplicates(connection, None if name is None else parse_name(name))
    columns = {
        "LIST": lambda row: row.list,
        "CODE": lambda row: row.code,
        "BEFORE": lambda row: row.state,
        "NOW": lambda row: "removed" if row.removed else "with its recipient",
        "ALSO IN": lambda row: row.first_list or "(deleted)",
    }
    emit_json(found) if json_output else emit_table(found, columns, empty="the upgrade found no duplicates")


@lists.command()
@click.argument("name")
@click.argument("new_name")
@asynchronous
async def copy(name: str, new_name: str) -> None:
    """Create an empty list with the settings of another list.

    Codes are never copied.
    """
    from coupons.names import parse_name
    from coupons.store import lists

    require_activated(f"list {name} cannot be copied")
    async with database() as connection:
        await lists.copy(connection, parse_name(name), parse_name(new_name))
    click.echo(f"list {parse_name(new_name)} created")


@lists.command()
@click.argument("name")
@asynchronous
async def archive(name: str) -> None:
    """Archive a list.

    An archived list accepts no imports and no new sendouts. It still serves the sendouts that were accepted before,
    also when they are resumed or retried; those that are not finished are shown.
    """
    from coupons.names import parse_name
    from coupons.store import lists

    require_activated(f"list {name} cannot be archived")
    async with database() as connection:
        served = await lists.archive(connection, parse_name(name))
    click.echo(f"list {parse_name(name)} archived")
    for each in served[:SERVED_SHOWN]:
        click.echo(f"  still serves sendout {each.id} of message {each.message}, which is {each.state}")
    if len(served) > SERVED_SHOWN:
        click.echo(f"  and {counted(len(served) - SERVED_SHOWN, 'other sendout')}")


@lists.command()
@click.argument("name")
@asynchronous
async def restore(name: str) -> None:
    """Restore an archived list."""
    from coupons.names import parse_name
    from coupons.store import lists

    require_activated(f"list {name} cannot be restored")
    async with database() as connection:
        await lists.restore(connection, parse_name(name))
    click.echo(f"list {parse_name(name)} restored")


@lists.command()
@click.argument("name")
@yes_option
@asynchronous
async def delete(name: str, yes: bool) -> None:
    """Delete an archived list with its codes and rejected lines.

    Only the hashes of sent codes are kept: no list accepts these codes again, and `coupons who --code` still finds
    them. Sendouts stay in the outbox. Messages that use the list must be saved again before they can be sent. The name
    can be used for a new list.
    """
    from coupons.names import parse_name
    from coupons.store import lists

    require_activated(f"list {name} cannot be deleted")
    async with database() as connection:
        (found,) = await lists.get(connection, parse_name(name))
        codes = counted(found.total, "code")
        confirm_deletion(f"{_kept(found.sent)} Delete list {found.name} and its {codes}?", yes=yes)
        sent = await lists.delete(connection, found.name)
    click.echo(f"list {found.name} deleted. {_kept(sent)}")


def _kept(sent: int) -> str:
    if not sent:
        return "None of its codes was sent."
    hashes, codes = ("hash", "this code") if sent == 1 else ("hashes", "these codes")
    verb = "is" if sent == 1 else "are"
    return f"The {hashes} of {counted(sent, 'sent code')} {verb} kept, so no list accepts {codes} again."
