"""`coupons import retry` and `coupons import undo`: a new import repeats a failed one, or takes an earlier one back."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID, uuid4

import click

from producers.cli.confirm import confirm, is_asked, yes_option
from producers.cli.files import format_options, parse_format
from producers.cli.imports import allow_empty_option, finish_import, follow_options
from producers.cli.job_id import JobId
from producers.cli.output import counted, emit_json
from producers.cli.progress import check_timeout
from producers.cli.runtime import asynchronous, database, on_abort, publish, settings

if TYPE_CHECKING:
    from coupons.commands import ImportCoupons
    from coupons.database import Connection
    from coupons.store.imports import ImportStatus
    from coupons.store.undo import Undone


@click.command("retry")
@click.argument("failed", metavar="ID", type=JobId("import"))
@click.option(
    "--yes", is_flag=True, help="Retry although the codes look like those of another list, or most lines are rejected."
)
@allow_empty_option
@click.option(
    "--reset-format",
    is_flag=True,
    help="Drop the format options of the failed import: those not given are detected again.",
)
@follow_options
@format_options
@asynchronous
async def retry_import(
    failed: UUID, yes: bool, allow_empty: bool, reset_format: bool, format_fields: dict[str, Any], wait: bool,
    timeout_seconds: float | None, rejected: TextIO | None, id_: UUID | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Retry a failed import, with other options if needed.

    The file of a failed import is kept for 24 hours, so it is not uploaded again. The mode and the options of the
    format are those of the failed import; each option of the format that is given replaces one. The result is a new
    import, whose id is printed.

    --yes and --allow-empty of the failed import do not count, because they were given for other numbers.
    """
    from coupons.store import imports
    from coupons.store.imports import Changes

    _check_options(wait=wait, timeout_seconds=timeout_seconds, rejected=rejected)
    changes = Changes(
        parse_format(format_fields).model_dump(include=set(format_fields)), yes, allow_empty, reset_format
    )
    async with database() as connection:
        command = await imports.retry_command(connection, failed, changes, new_id=id_ or uuid4())
        await _publish(connection, command)
    return await finish_import(
        command.id, wait=wait, timeout_seconds=timeout_seconds, rejected=rejected, json_output=json_output
    )


@click.command("undo")
@click.argument("undone", metavar="ID", type=JobId("import"))
@click.option("--dry-run", is_flag=True, help="Print what an undo would take back and restore at most.")
@yes_option
@follow_options
@asynchronous
async def undo_import(
    undone: UUID, dry_run: bool, yes: bool, wait: bool, timeout_seconds: float | None, rejected: TextIO | None,
    id_: UUID | None, json_output: bool,
) -> int | None:  # fmt: skip
    """Take back what an import added, and restore what it removed.

    Codes are taken back while they are available, recipients while they are as the import added them. What an import
    removed is kept for 7 days. The report has the numbers that could not be undone, and why. The result is a new
    import, whose id is printed; it can be undone as well. A repeated undo takes back what is left, and restores
    nothing again.

    Exit code 3: the undo is not complete. `coupons show ID --rejected` prints the codes that were not restored.
    """
    from coupons.store import imports, undo

    _check_options(wait=wait, timeout_seconds=timeout_seconds, rejected=rejected)
    async with database() as connection:
        command = await imports.undo_command(connection, undone, new_id=id_ or uuid4())
        numbers = [*_numbers(await imports.get(connection, undone), left := await undo.get(connection, undone))]
        if dry_run:
            await imports.check_command(connection, command)
            if json_output:
                emit_json({"to_take_back": left.added, "to_restore": left.removed})
            else:
                click.echo("\n".join(numbers))
            return None
        if is_asked(yes=yes):
            confirm(f"Undo import {undone}?", numbers)
        await _publish(connection, command)
    return await finish_import(
        command.id, wait=wait, timeout_seconds=timeout_seconds, rejected=rejected, json_output=json_output
    )


def _numbers(job: "ImportStatus", left: "Undone") -> Iterator[str]:
    """Yield what the undo of an import takes back and restores at most."""
    noun = "recipient" if job.group else "code"
    if left.added:
        which = "as it added them" if job.group else "available"
        yield f"take back: at most {counted(left.added, noun)} that it added to {job.target}, if still {which}"
    if left.removed:
        yield f"restore: at most {counted(left.removed, noun)} that it removed from {job.target}"


def _check_options(*, wait: bool, timeout_seconds: float | None, rejected: TextIO | None) -> None:
    check_timeout(timeout_seconds, wait=wait)
    if rejected and not wait:
        raise click.UsageError("--rejected needs --wait")


async def _publish(connection: "Connection", command: "ImportCoupons") -> None:
    """Check the command as a worker does, and publish it. Raises Conflict, BrokerUnavailable."""
    from coupons.store import activation, imports, inbox

    if not await inbox.is_repeated(connection, command):
        await activation.check_command(connection, command, activated=settings().activated)
        await imports.check_command(connection, command)
    with on_abort("nothing was imported"):
        await publish(command)
