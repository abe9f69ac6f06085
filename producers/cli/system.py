"""`coupons worker`, `web`, `migrate`, `doctor`, `demo`, `completion`: running the system itself."""

from importlib import import_module
from pathlib import Path

import click

from producers.cli.output import as_json, emit_json
from producers.cli.runtime import FAILED, Failed, asynchronous, database, settings, told


@click.command()
@click.option(
    "--role", "roles", multiple=True, type=click.Choice(["import", "sendout", "deliver"]),
    help="What this process does; all if not given. May be repeated.",
)  # fmt: skip
def worker(roles: tuple[str, ...]) -> None:
    """Take commands and do the work: import, prepare and resume sendouts, deliver mails.

    Run as many as you like. SIGTERM lets work in hand come to its end; a second one does not wait.
    """
    with told():
        # By name: producers and workers don't know each other, and only this command brings them together.
        import_module("workers.main").run(settings(), roles)


@click.command()
@asynchronous
async def migrate() -> None:
    """Bring the database up to date; safe to run at any time, by several at once."""
    from coupons.migrate import migrate as apply
    from coupons.store import restore_guard

    applied = await apply(settings().database_url.get_secret_value())
    for migration in applied:
        click.echo(f"applied {migration.number:04} {migration.name}")
    click.echo("the database is up to date")
    async with database() as connection:
        if refusal := await restore_guard.refusal(connection):
            click.echo(refusal, err=True)


@click.command()
@as_json
@asynchronous
async def doctor(json_output: bool) -> int | None:
    """Look at the database, the broker, the relay and rejected commands; exit code 1 if anything is wrong."""
    from producers.doctor import examine

    findings = await examine(settings())
    if json_output:
        emit_json(findings)
    else:
        for finding in findings:
            mark = click.style("✓", fg="green") if finding.well else click.style("✗", fg="red")
            click.echo(f"{mark} {finding.about}: {finding.says}")
    return None if all(finding.well for finding in findings) else FAILED


@click.command()
@asynchronous
async def web() -> None:
    """Serve the console and the HTTP API."""
    from producers.web.server import serve

    await serve(settings())


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=".demo", show_default=True,
    help="Where the services keep their data while the demo runs.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the services running afterwards, until Ctrl-C.")
def demo(folder: Path, keep: bool) -> None:
    """Start everything privately and play the whole story: too few codes, interrupted, resumed, checked."""
    from producers.demo import play

    with told():
        if not play(folder, keep=keep):
            raise Failed("the demo's check failed")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes `coupons` in a shell: eval "$(coupons completion bash)"."""
    from click.shell_completion import get_completion_class

    from producers.cli import main

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(main, {}, "coupons", "_COUPONS_COMPLETE").source())
