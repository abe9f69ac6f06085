"""The way of a file and its import command to the workers: both arrive, or neither is of any consequence."""

from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

from producers.cli.files import can_be_read_again, check_beginning, sha256_of, source_of
from producers.cli.progress import bar
from producers.cli.runtime import database, publish, settings

if TYPE_CHECKING:
    from coupons.commands import Format, ImportCoupons
    from coupons.database import Connection
    from coupons.store.imports import Mode
    from coupons.store.uploads import Upload


async def send_import(file: BinaryIO | str, list_: str, mode: "Mode", format_: "Format", id_: UUID | None) -> UUID:
    """Upload the file, if it is one, and publish the command; returns the command's id.

    Raises Refused, BrokerUnavailable, FileError, SourceError.
    """
    from uuid import uuid4

    from coupons.commands import ImportCoupons
    from coupons.store import imports

    source = file if isinstance(file, str) else f"upload:{await _upload_id(file, id_)}"
    command = ImportCoupons(id=id_ or uuid4(), list=list_, mode=mode, source=source, format=format_)
    async with database() as connection:
        if id_ and await _is_known(connection, command, file):
            return id_
        await imports.check(connection, command.model_copy(update={"source": None}))  # its file is still to come
        if isinstance(file, str):
            await publish(command)
        else:
            await _send_file(connection, file, command, repeatable=id_ is not None)
    return command.id


async def _upload_id(file: BinaryIO, id_: UUID | None) -> UUID:
    """Always the same for one command of one file: run again before a worker has seen it, it is one command still."""
    from uuid import uuid4, uuid5

    digest = await sha256_of(file) if id_ else None
    return uuid5(id_, digest.hex()) if id_ and digest else uuid4()


async def _is_known(connection: "Connection", command: "ImportCoupons", file: BinaryIO | str) -> bool:
    """Raises Refused if the id is that of another command; of what is piped in, nobody knows what it was then."""
    from coupons.store import inbox

    if isinstance(file, str) or can_be_read_again(file):
        return await inbox.is_repeated(connection, command)
    return await inbox.is_known(connection, command.id)


async def _send_file(connection: "Connection", file: BinaryIO, command: "ImportCoupons", *, repeatable: bool) -> None:
    """Without its file, a command that may have been published after all comes to nothing, as its person was told.

    One that is `repeatable` keeps it: the same id again must not have been spent on a command without a file.
    """
    from coupons.database import TRANSIENT_ERRORS
    from coupons.store import uploads

    upload = await _upload(connection, file, command)
    try:
        await publish(command)
    except BaseException:
        if not repeatable:
            with suppress(*TRANSIENT_ERRORS):
                await uploads.drop(connection, upload.id)
        raise


async def _upload(connection: "Connection", file: BinaryIO, command: "ImportCoupons") -> "Upload":
    from coupons.store import uploads

    await check_beginning(file, command.format.as_file_format())
    with bar("uploading") as show:
        source = source_of(file, show)
        return await uploads.keep(
            connection,
            source.name,
            source.pieces,
            max_bytes=settings().import_max_bytes,
            upload_id=uploads.id_in(command.source or ""),
        )
