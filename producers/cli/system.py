"""`coupons worker`, `web`, `migrate`, `doctor`, `demo`, `completion`: running the system itself."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from producers.cli.output import amount, as_json, counted, emit_json, mark
from producers.cli.runtime import FAILED, Failed, asynchronous, database, settings, user_errors

if TYPE_CHECKING:
    from coupons.store.lists import DuplicateCounts


@click.command()
@click.option(
    "--role", "roles", multiple=True, type=click.Choice(["import", "sendout", "deliver"]),
    help="Role to run, repeatable.  [default: all]",
)  # fmt: skip
def worker(roles: tuple[str, ...]) -> None:
    """Run a worker.

    A worker imports files, prepares sendouts and delivers mails. Run as many workers as you like.

    SIGTERM shuts the worker down gracefully: it first waits for the final reply to each in-flight mail. A second
    SIGTERM exits immediately.
    """
    from workers.main import run

    with user_errors():
        run(settings(), roles)


@click.command()
@asynchronous
async def migrate() -> None:
    """Create or update the database schema.

    Safe to run at any time, and by several processes at once.
    """
    from coupons.migrate import UNIQUE_CODES
    from coupons.migrate import migrate as apply
    from coupons.store import lists, restore_guard

    applied = await apply(settings().database_url.get_secret_value())
    for migration in applied:
        click.echo(f"applied {migration.number:04} {migration.name}")
    click.echo("the database is up to date")
    async with database() as connection:
        if any(migration.number == UNIQUE_CODES for migration in applied):
            for each in await lists.count_duplicates(connection):
                click.echo(describe_duplicates(each))
        if refusal := await restore_guard.refusal(connection):
            click.echo(refusal, err=True)


def describe_duplicates(counts: "DuplicateCounts") -> str:
    """Return the numbers of a list's duplicates, and the command that shows them."""
    kept = f", {amount(counts.kept)} kept by recipients who may have got them" * bool(counts.kept)
    removed = counted(counts.removed, "duplicate code")
    return f"list {counts.list}: {removed} removed{kept}: see `coupons list duplicates {counts.list}`"


@click.command()
@as_json
@asynchronous
async def doctor(json_output: bool) -> int | None:
    """Check the services and show rejected commands.

    Checks the database, the broker with its queues, and the relays. Exits with code 1 if a check fails or commands were
    rejected.
    """
    from producers.doctor import examine

    checks = await examine(settings())
    if json_output:
        emit_json(checks)
    else:
        for check in checks:
            click.echo(f"{mark(check.ok)} {check.name}: {check.detail}")
    return None if all(check.ok for check in checks) else FAILED


@click.command()
@asynchronous
async def web() -> None:
    """Serve the web console and the HTTP API."""
    from producers.web.server import serve

    await serve(settings())


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=".demo", show_default=True,
    help="Folder for the services' data and logs.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the services running afterwards, until Ctrl-C.")
def demo(folder: Path, keep: bool) -> None:
    """Run the typical workflow on private services.

    Starts PostgreSQL, RabbitMQ and a mail sink. A sendout with too few codes is interrupted, more codes are imported,
    the sendout is resumed, and all 1,000 mails are checked.
    """
    from producers.demo import play

    with user_errors():
        if not play(folder, keep=keep):
            raise Failed("the demo's check failed")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell completion script.

    To use it in bash: eval "$(coupons completion bash)"
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(ctx.find_root().command, {}, "coupons", "_COUPONS_COMPLETE").source())
