"""`coupons group …`: who is mailed."""

from pathlib import Path
from typing import BinaryIO, TextIO

import click

from producers.cli.output import amount, as_json, emit_json, emit_rejected, emit_table
from producers.cli.session import REJECTED_LINES, asynchronous, database


@click.group("group")
def groups() -> None:
    """Groups of recipients: import, look."""


@groups.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--group", required=True, help="The group that gets the recipients; made if need be.")
@click.option("--encoding", default="utf-8", show_default=True, help="Never guessed; any that Python knows.")
@click.option("--separator", help="Found among ; , TAB | if not given.")
@click.option("--column", help="Name of the column with the addresses; found by its name if not given.")
@click.option(
    "--rejected", type=click.File("w", encoding="utf-8"), help="Write the lines that were not taken to this CSV."
)
@as_json
@asynchronous
async def import_file(
    file: BinaryIO, group: str, encoding: str, separator: str | None, column: str | None,
    rejected: TextIO | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Import recipients from FILE, a CSV with a header; `-` reads stdin.

    The column `email` (or `E-Mail`, `mail` …) holds the address, every other column is an attribute that messages can
    print. An address that the group has already gets the new attributes.
    """
    from coupons.codes import Reason, Rejected, list_name, rejections_csv
    from coupons.reading import FileFormat
    from coupons.recipients import RecipientReader
    from coupons.store import groups
    from coupons.store.imports import CHUNK_BYTES

    name = list_name(group)
    format_ = FileFormat(kind="csv", separator=separator, encoding=encoding, column=column)
    reader = RecipientReader(format_, Path(file.name).name)
    refused: list[Rejected] = []
    added = known = 0
    async with database() as connection, connection.transaction():
        while True:
            piece = file.read(CHUNK_BYTES)
            checked = reader.feed(piece) if piece else reader.finish()
            rows = list(zip(checked.lines, checked.recipients, strict=True))
            done = await groups.add(connection, name, reader.attributes, rows)
            added, known = added + done.added, known + done.known
            refused += checked.rejected
            refused += [Rejected(line, address, Reason.DUPLICATE) for line, address in done.duplicates]
            if not piece:
                break
    if rejected:
        rejected.writelines(rejections_csv(refused, column="email"))
    if json_output:
        emit_json({"group": name, "added": added, "known": known, "rejected": refused})
    else:
        click.echo(f"group {name}: {amount(added)} added, {amount(known)} known, {amount(len(refused))} rejected")
    emit_rejected(refused, len(refused), rest="--rejected FILE writes them all")
    return REJECTED_LINES if refused else None


@groups.command()
@as_json
@asynchronous
async def ls(json_output: bool) -> None:
    """All groups, with the attributes that their recipients have."""
    from coupons.store import groups

    async with database() as connection:
        found = await groups.all_of(connection)
    if json_output:
        emit_json(found)
        return
    columns = {
        "GROUP": lambda row: row.name,
        "RECIPIENTS": lambda row: row.recipients,
        "ATTRIBUTES": lambda row: row.attributes,
    }
    emit_table(found, columns, empty="no groups yet: coupons group import FILE --group NAME")
