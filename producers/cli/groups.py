"""`coupons group …`: who is mailed."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TextIO
from uuid import UUID

import click

from producers.cli.files import (
    FileOrUrl,
    check_beginning,
    display_name,
    format_options,
    number_or_name,
    rejected_option,
    source_of,
)
from producers.cli.imports import conclude, judge, progress_of
from producers.cli.output import as_json, emit_json, emit_table
from producers.cli.progress import POLL_SECONDS, follow
from producers.cli.runtime import Failed, asynchronous, database, settings

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.files.format import FileFormat
    from coupons.sources import Source, SourceLimits
    from coupons.store.imports import Import, Job, Mode, Waiting


def owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@click.group("group")
def groups() -> None:
    """Groups of recipients: import, look."""


@groups.command("import")
@click.argument("file", type=FileOrUrl())
@click.option("--group", required=True, help="The group that gets the recipients; made if need be.")
@click.option(
    "--mode", type=click.Choice(["add", "replace", "delete"]), default="add", show_default=True,
    help="Add the recipients, new attributes of known ones too; make them the group's only ones; or delete them.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would become of each line; write nothing.")
@rejected_option
@format_options
@as_json
@asynchronous
async def import_file(
    file: BinaryIO | str, group: str, mode: "Mode", dry_run: bool, rejected: TextIO | None, encoding: str,
    separator: str | None, column: str | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Import recipients from FILE, a CSV with a header, also as .gz or .zip; `-` reads stdin, and URLs are read here.

    The column `email` (or `E-Mail`, `mail` …) holds the address, every other column is an attribute that messages can
    print. An address that the group has already gets the new attributes. No worker is needed; ended with Ctrl-C, the
    import keeps what was committed until then. Exit code 3: done, but some lines were not taken.
    """
    from coupons.files.format import FileFormat
    from coupons.names import parse_name
    from coupons.store import imports

    name = parse_name(group)
    format_ = FileFormat(kind="csv", separator=separator, encoding=encoding, column=number_or_name(column))
    if dry_run:
        return await _dry_run(file, name, mode, format_, rejected, json_output=json_output)
    if not isinstance(file, str):
        await check_beginning(file, format_, recipients=True)
    import_id = await _import(file, name, mode, format_)
    async with database() as connection:
        job = await _found(connection, import_id)
        if json_output:
            lines = [each async for each in imports.rejections(connection, import_id)]
            emit_json({**asdict(job), "known": job.kept, "rejected": lines})
        return await conclude(connection, job, rejected, quiet=json_output)


async def _import(file: BinaryIO | str, group: str, mode: "Mode", format_: "FileFormat") -> UUID:
    """Carry the import out in this process, under a lease as a worker would, and show its progress."""
    from coupons.errors import LeaseLost, UserError
    from coupons.store import imports

    async with database() as connection, database() as looking:
        said = {name: value for name, value in asdict(format_).items() if value is not None}
        waiting = await imports.create_local(
            connection, group, mode, _name(file), said, owner=owner(), lease_seconds=settings().lease_seconds
        )
        watching = asyncio.create_task(follow(lambda: _found(looking, waiting.id), progress_of, title="importing"))
        try:
            await _carry_out(connection, waiting, file)
            await watching  # until it has shown the end
        except UserError as error:
            await _give_up(waiting.id, str(error))
            raise
        except LeaseLost:
            raise Failed(f"import {waiting.id} was cancelled; what was committed until then stays") from None
        except asyncio.CancelledError:
            await _give_up(waiting.id, None)
            raise Failed("cancelled; what was committed until then stays") from None
        finally:
            watching.cancel()
            await asyncio.wait([watching])
    return waiting.id


async def _carry_out(connection: "Connection", waiting: "Waiting", file: BinaryIO | str) -> None:
    from coupons import import_engine
    from coupons.lease import kept
    from coupons.sources import SourceLimits
    from coupons.store import imports

    known = settings()
    rules = SourceLimits.from_settings(known)
    job = await _claimed(connection, waiting, known.lease_seconds)
    async with database() as other, database() as beating, _opened(file, rules) as source:
        renew = partial(imports.renew, beating, job, lease_seconds=known.lease_seconds)
        async with kept(renew, every=known.heartbeat_seconds, expires_after=known.lease_seconds):
            await import_engine.carry_out(
                (connection, other), job, source, rules,
                max_lines=known.import_max_lines, lease_seconds=known.lease_seconds, stopping=lambda: False,
            )  # fmt: skip
            await imports.finish(connection, job)


async def _claimed(connection: "Connection", waiting: "Waiting", lease_seconds: float) -> "Job":
    """The import, as soon as no other one into its group is going on. Raises LeaseLost: it was cancelled."""
    from coupons.store import imports

    while True:
        job = await imports.claim(
            connection,
            owner=owner(),
            lease_seconds=lease_seconds,
            import_id=waiting.id,
            lease_token=waiting.lease_token,
        )
        if job:
            return job
        await imports.renew(connection, waiting, lease_seconds=lease_seconds)
        await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _opened(file: BinaryIO | str, rules: "SourceLimits") -> "AsyncIterator[Source]":
    from coupons.sources import open_source

    if isinstance(file, str):
        async with open_source(file, rules) as source:
            yield source
    else:
        yield source_of(file)


async def _give_up(import_id: UUID, reason: str | None) -> None:
    """Over a connection of its own: the other one may be in the middle of something."""
    from coupons.store import imports

    async with database() as connection:
        await imports.give_up(connection, import_id, reason)


async def _found(connection: "Connection", import_id: UUID) -> "Import":
    from coupons.store import imports

    found = await imports.find(connection, import_id)
    assert found  # noqa: S101 - it was made by this process
    return found


async def _dry_run(
    file: BinaryIO | str, group: str, mode: "Mode", format_: "FileFormat", rejected: TextIO | None, *, json_output: bool
) -> int | None:
    from coupons.store import groups
    from coupons.store.imports import Target

    async with database() as connection:
        found = await groups.find(connection, group)
        target = Target(found.id if found else 0, group, is_group=True)  # one that is to be made has nobody in it
        return await judge(connection, file, target, mode, format_, rejected, json_output=json_output)


def _name(file: BinaryIO | str) -> str:
    return file if isinstance(file, str) else display_name(file)


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
