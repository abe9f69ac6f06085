"""`coupons import`: codes into a list."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from uuid import UUID

import click

from producers.cli.following import Progress, follow
from producers.cli.output import REJECTED_SHOWN, amount, as_json, emit_json, emit_rejected
from producers.cli.session import REJECTED_LINES, Failed, asynchronous, database, publish

if TYPE_CHECKING:
    from coupons.reading import FileFormat
    from coupons.store.imports import Import


def format_options(command: Any) -> Any:
    """How the file is to be read."""
    for option in (
        click.option("--encoding", default="utf-8", show_default=True, help="Never guessed; any that Python knows."),
        click.option("--separator", help="Of a CSV file; found among ; , TAB | if not given."),
        click.option("--column", help="Name or number (from 1) of the column that holds the codes."),
        click.option("--kind", type=click.Choice(["txt", "csv"]), help="Found by the file's name and first line."),
    ):
        command = option(command)
    return command


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--list", "list_", required=True, help="The list that gets the codes.")
@click.option(
    "--mode", type=click.Choice(["add", "replace", "delete"]), default="add", show_default=True,
    help="Add the codes; make them the list's only free ones; or delete them where they are free.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would become of each line; write nothing.")
@click.option("--wait", is_flag=True, help="Follow the import to its end.")
@click.option("--id", "id_", type=click.UUID, help="The command's id; the same id again is the same import.")
@format_options
@as_json
@asynchronous
async def import_file(
    file: BinaryIO, list_: str, mode: Literal["add", "replace", "delete"], dry_run: bool, wait: bool, id_: UUID | None,
    encoding: str, separator: str | None, column: str | None, kind: Literal["txt", "csv"] | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Import FILE, TXT with one code a line or CSV; `-` reads stdin.

    The file goes to the workers through the database. Exit code 3: done, but some lines were not taken; see them with
    `coupons show ID --rejected`.
    """
    from coupons.codes import list_name
    from coupons.reading import FileFormat

    format_ = FileFormat(kind=kind, separator=separator, encoding=encoding, column=_number_or_name(column))
    if dry_run:
        return await _dry_run(file, list_name(list_), format_, json_output=json_output)
    import_id = await _send(file, list_name(list_), mode, format_, id_)
    if not wait:
        emit_json({"id": import_id}) if json_output else click.echo(import_id)
        return None
    return await _wait(import_id, json_output=json_output)


async def _send(
    file: BinaryIO, list_: str, mode: Literal["add", "replace", "delete"], format_: "FileFormat", id_: UUID | None
) -> UUID:
    from coupons.commands import Format, ImportCoupons
    from coupons.reading import CodeReader
    from coupons.store import imports, inbox, lists

    async with database() as connection:
        await lists.named(connection, list_)
        if id_ and await inbox.is_known(connection, id_):
            return id_  # the same import; another upload would make it another command
        name, first = click.format_filename(file.name, shorten=True), file.read(imports.CHUNK_BYTES)
        CodeReader(format_, name).feed(first)  # what is no list of codes is refused before anything is begun
        upload = await imports.upload(connection, name, _pieces(file, first))
        format_said = Format(
            kind=format_.kind, separator=format_.separator, encoding=format_.encoding, column=format_.column
        )
        command = ImportCoupons(list=list_, mode=mode, source=f"upload:{upload.id}", format=format_said)
        if id_:
            command = command.model_copy(update={"id": id_})
        await imports.check(connection, command)
    await publish(command)
    return command.id


async def _wait(import_id: UUID, *, json_output: bool) -> int | None:
    from coupons.store import imports, inbox

    async with database() as connection:

        async def look() -> "Import | None":
            return await imports.find(connection, import_id) if await inbox.is_known(connection, import_id) else None

        job = await follow(look, _progress, title="importing")
        rejected = await imports.rejections(connection, import_id, limit=REJECTED_SHOWN)
    if job.state == "failed":
        raise Failed(f"import {job.id} into {job.list} failed: {job.reason}")
    if json_output:
        emit_json(job)
    else:
        describe(job)
        emit_rejected(rejected, job.rejected, rest=f"coupons show {import_id} --rejected")
    return REJECTED_LINES if job.rejected else None


def describe(job: "Import") -> None:
    """What became of an import, in one line."""
    parts = {"added": job.added, "removed": job.removed, "kept": job.kept, "blank": job.blank}
    changed = "".join(f", {amount(number)} {what}" for what, number in parts.items() if number)
    reason = f": {job.reason}" if job.reason else ""
    click.echo(
        f"import {job.id} into {job.list} {job.state}{reason}: {amount(job.lines)} lines{changed}, "
        f"{amount(job.rejected)} rejected"
    )


def _progress(job: "Import") -> Progress:
    return Progress(job.bytes, job.total_bytes, job.state, ended=job.finished_at is not None)


async def _dry_run(file: BinaryIO, list_: str, format_: "FileFormat", *, json_output: bool) -> int | None:
    """The same reader, the same checks, the same database; nothing written."""
    from coupons.codes import Reason, Rejected
    from coupons.reading import CodeReader
    from coupons.store import imports, lists

    reader = CodeReader(format_, Path(file.name).name)
    seen: set[str] = set()
    counts = dict.fromkeys(("new", "blank", *(reason.value for reason in Reason)), 0)
    async with database() as connection:
        (target,) = await lists.named(connection, list_)
        async for piece in _pieces(file, end=b""):
            checked = reader.feed(piece) if piece else reader.finish()
            counts["blank"] += checked.blank
            known = {each.line: each for each in await imports.judge(connection, target.id, checked)}
            for line, code in zip(checked.lines, checked.codes, strict=True):
                if code in seen:
                    known[line] = Rejected(line, code, Reason.DUPLICATE)
                seen.add(code)
            for each in (*checked.rejected, *known.values()):
                counts[each.reason.value] += 1
            counts["new"] += len(checked.codes) - len(known)
    rejected = sum(counts.values()) - counts["new"] - counts["blank"]
    if json_output:
        emit_json(counts)
    else:
        click.echo(
            ", ".join(f"{amount(n)} {what.replace('_', ' ')}" for what, n in counts.items() if n or what == "new")
        )
    return REJECTED_LINES if rejected else None


async def _pieces(file: BinaryIO, first: bytes = b"", *, end: bytes | None = None) -> AsyncIterator[bytes]:
    """The file's pieces, after one that was read already, and before one that marks the end."""
    from coupons.store.imports import CHUNK_BYTES

    if first:
        yield first
    while piece := file.read(CHUNK_BYTES):
        yield piece
    if end is not None:
        yield end


def _number_or_name(column: str | None) -> str | int | None:
    return int(column) if column and column.isdigit() else column
