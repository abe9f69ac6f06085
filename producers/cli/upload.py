"""Sends an import to the workers: stores the file in the database, then publishes the command."""

from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

from coupons.states import ImportMode
from producers.cli.confirm import confirm, is_asked
from producers.cli.files import can_be_read_again, check_beginning, sha256_of, source_of
from producers.cli.progress import bar
from producers.cli.runtime import database, publish, settings

if TYPE_CHECKING:
    from coupons.commands import Format, ImportCoupons
    from coupons.database import Connection
    from coupons.store.uploads import Upload


async def send_import(
    file: BinaryIO | str, *, list_: str | None, group: str | None, mode: ImportMode, format_: "Format",
    id_: UUID | None, confirmed: bool, allow_empty: bool,
) -> UUID:  # fmt: skip
    """Upload the file unless it is a URL, publish the command, and return the command's id.

    Raises Conflict, BrokerUnavailable, FileError, SourceError.
    """
    from uuid import uuid4

    from coupons.commands import ImportCoupons
    from coupons.store import activation, imports

    source = file if isinstance(file, str) else f"upload:{await _upload_id(file, id_)}"
    command = ImportCoupons(
        id=id_ or uuid4(), list=list_, group=group, mode=mode, source=source, format=format_, confirmed=confirmed,
        allow_empty=allow_empty,
    )  # fmt: skip
    async with database() as connection:
        if id_ and await _is_known(connection, command, file):
            return id_
        await activation.check_command(connection, command, activated=settings().activated)
        await imports.check_command(
            connection, command.model_copy(update={"source": None})
        )  # the file is uploaded later
        if isinstance(file, str):
            await publish(command)
        else:
            reviewed = await _review(connection, file, command)
            await _send_file(connection, file, reviewed, repeatable=id_ is not None)
    return command.id


async def _upload_id(file: BinaryIO, id_: UUID | None) -> UUID:
    """Derive the upload's id from the import's id and the file, so that a repeated command has the same content."""
    from uuid import uuid4, uuid5

    digest = await sha256_of(file) if id_ else None
    return uuid5(id_, digest.hex()) if id_ and digest else uuid4()


async def _is_known(connection: "Connection", command: "ImportCoupons", file: BinaryIO | str) -> bool:
    """Return whether the command was already accepted. Raises Conflict if another command has its id.

    An operator may have confirmed it only then, or only now. The content of a pipe cannot be compared with that of the
    accepted command.
    """
    from coupons.store import inbox

    if isinstance(file, str) or can_be_read_again(file):
        variants = [command.model_copy(update={"confirmed": confirmed}) for confirmed in (False, True)]
        return await inbox.is_repeated(connection, *variants)
    return await inbox.is_known(connection, command.id)


async def _review(connection: "Connection", file: BinaryIO, command: "ImportCoupons") -> "ImportCoupons":
    """Check the beginning of the file, and ask an operator at a terminal if its codes look like those of another list.

    Returns the command, confirmed if the operator has confirmed it. The worker checks the file again.

    Raises FileError, SourceError, WrongList, click.Abort.
    """
    from asyncpg import InsufficientPrivilegeError

    from coupons.files.code_shapes import shapes_of
    from coupons.store import list_shapes, lists

    codes = await check_beginning(file, command.format.as_file_format(), recipients=command.group is not None)
    if command.list is None or command.mode == ImportMode.DELETE or command.confirmed:
        return command
    (target,) = await lists.get(connection, command.list)
    with suppress(InsufficientPrivilegeError):  # this login may not read codes, and the shapes of a list are not known
        try:
            await list_shapes.check(connection, target.id, shapes_of(codes))
        except list_shapes.WrongList as wrong:
            if not is_asked(yes=False):
                raise
            confirm(f"Import them into list {command.list} all the same?", [wrong.suspicion])
            return command.model_copy(update={"confirmed": True})
    return command


async def _send_file(connection: "Connection", file: BinaryIO, command: "ImportCoupons", *, repeatable: bool) -> None:
    """Upload the file and publish the command.

    If publishing fails, the upload is deleted: if the command reached the broker all the same, it imports nothing. The
    upload of a `repeatable` command is kept: the same command line, run again, refers to the same upload.
    """
    from coupons.database import TRANSIENT_ERRORS
    from coupons.store import uploads

    upload = await _upload(connection, file, command)
    try:
        await publish(command)
    except BaseException:
        if not repeatable:
            with suppress(*TRANSIENT_ERRORS):
                await uploads.delete(connection, upload.id)
        raise


async def _upload(connection: "Connection", file: BinaryIO, command: "ImportCoupons") -> "Upload":
    from coupons.store import uploads

    with bar("uploading") as show:
        source = source_of(file, show)
        return await uploads.store(
            connection,
            source.name,
            source.pieces,
            max_bytes=settings().import_max_bytes,
            upload_id=uploads.parse_source(command.source or ""),
        )
