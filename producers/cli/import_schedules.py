"""`coupons import schedule`, `schedules` and `unschedule`: imports that workers repeat."""

from typing import TYPE_CHECKING, Any

import click

from coupons.states import FILE_MODES
from producers.cli.confirm import confirm_deletion, yes_option
from producers.cli.files import format_options, parse_format
from producers.cli.output import as_json, emit_json, emit_table, emit_warnings, moment
from producers.cli.runtime import asynchronous, database, settings

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.recurring import RecurringImport
    from coupons.store.import_schedules import ImportSchedule, Run

EXAMPLE = """\b
Example:
  coupons import schedule nightly-codes --cron "0 3 * * *" \\
    --zone Europe/Berlin --source https://shop.example.org/codes.csv \\
    --list spring-10
  coupons import schedule nightly-codes --cron "0 4 * * *"  # the rest stays"""
_ACTIONS = ("pause", "resume", "now")
_REQUIRED = ("cron", "source")


@click.command("schedule", epilog=EXAMPLE)
@click.argument("name")
@click.option("--cron", help="When to import: five fields, as `30 6 * * 1-5`, or @hourly, @daily, @weekly, @monthly.")
@click.option("--zone", help="Time zone of --cron, as Europe/Berlin.  [default: that of this machine]")
@click.option("--source", help="What to import: https://…, s3://bucket/key or file:///…")
@click.option("--list", "list_", help="List to import codes into.")
@click.option("--group", help="Group to import recipients into; created if missing.")
@click.option(
    "--mode", type=click.Choice([mode.value for mode in FILE_MODES]),
    help="add codes or recipients; replace: also remove all others; delete: remove those of the file.  [default: add]",
)  # fmt: skip
@click.option("--yes/--no-yes", "confirmed", default=None, help="Also import codes that look like those of another"
              " list, and replace or delete although most lines are rejected.")  # fmt: skip
@click.option("--allow-empty/--no-allow-empty", default=None,
              help="Replace even if no line is accepted: nothing remains.")  # fmt: skip
@click.option("--pause", is_flag=True, help="Begin no more imports until --resume.")
@click.option("--resume", is_flag=True, help="Begin imports again, at the next time that matches.")
@click.option("--now", is_flag=True, help="Import once more now, also while paused.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, metavar="N",
              help="Show the last N runs; 100 are kept.")  # fmt: skip
@format_options
@as_json
@asynchronous
async def schedule_import(
    name: str, cron: str | None, zone: str | None, source: str | None, list_: str | None, group: str | None,
    mode: str | None, confirmed: bool | None, allow_empty: bool | None, limit: int, format_fields: dict[str, Any],
    json_output: bool, **actions: bool,
) -> None:  # fmt: skip
    """Create, change or show a recurring import.

    Workers repeat the import at each time that matches --cron. A new one needs --cron, --source, and --list or --group.
    If NAME exists, the given options are changed and the others stay. Without options, NAME is shown with its last
    runs.

    Each occurrence runs at most once, with any number of workers. If occurrences are missed because no
    worker runs, the last one runs late. An occurrence is skipped while the previous import is not finished. Workers see
    changes within COUPONS_SWEEP_SECONDS.
    """
    from coupons.names import parse_name

    chosen = [action for action in _ACTIONS if actions[action]]
    if chosen[:1] == ["pause"] and chosen[1:]:
        raise click.UsageError(f"--pause and --{chosen[1]} cannot be combined")
    if list_ and group:
        raise click.UsageError("exactly one of --list and --group is required")
    format_ = parse_format(format_fields).model_dump(mode="json", include={*format_fields})
    fields = {"cron": cron, "zone": zone, "source": source, "list": list_, "group": group, "mode": mode,
              "format": format_ or None, "confirmed": confirmed, "allow_empty": allow_empty}  # fmt: skip
    given = {field: value for field, value in fields.items() if value is not None}
    async with database() as connection:
        async with connection.transaction():
            if given:
                await _change(connection, parse_name(name), given)
            found = await _act(connection, parse_name(name), chosen)
        await _show(connection, found, limit=limit, json_output=json_output)


async def _change(connection: "Connection", name: str, given: dict[str, Any]) -> None:
    from coupons.recurring import merge, parse
    from coupons.store import activation, import_schedules
    from producers.local_time import name_of_local_zone

    stored = await import_schedules.lock(connection, name)
    if stored is None:
        _require_all(name, given)
    request = parse(merge(stored or {"zone": name_of_local_zone()}, given))
    if "source" in given:
        _check_source(request)
    await activation.check_command(connection, request.command, activated=settings().activated)
    await import_schedules.put(connection, name, request)


def _require_all(name: str, given: dict[str, Any]) -> None:
    missing = [f"--{option}" for option in _REQUIRED if option not in given]
    missing += [] if "list" in given or "group" in given else ["--list or --group"]
    if missing:
        raise click.UsageError(f"there is no recurring import {name} yet: a new one needs {', '.join(missing)}")


def _check_source(request: "RecurringImport") -> None:
    """Raise SourceError if the settings of this machine do not allow the source; warn if they do not know."""
    from coupons.sources import SourceLimits, check_allowed

    source = request.command.source or ""
    if not check_allowed(source, SourceLimits.from_settings(settings())):
        scheme = source.partition(":")[0].lower()
        setting = {"https": "COUPONS_IMPORT_HOSTS", "s3": "COUPONS_IMPORT_BUCKETS"}.get(scheme, "COUPONS_IMPORT_FOLDER")
        emit_warnings([f"{setting} is not set here: the import fails unless it allows the source where workers run"])


async def _act(connection: "Connection", name: str, chosen: list[str]) -> "ImportSchedule":
    from coupons.store import import_schedules

    if "pause" in chosen:
        await import_schedules.pause(connection, name)
    if "resume" in chosen:
        await import_schedules.resume(connection, name)
    if "now" in chosen:
        await import_schedules.run_now(connection, name)
    return await import_schedules.get(connection, name)


async def _show(connection: "Connection", found: "ImportSchedule", *, limit: int, json_output: bool) -> None:
    from coupons.store import import_schedules

    runs = await import_schedules.list_runs(connection, found.name, limit=limit)
    if json_output:
        emit_json({"schedule": found, "runs": runs})
        return
    click.echo(f"recurring import {found.name}: {found.source} into {found.target}")
    if found.options:
        click.echo(f"  options: {found.options}")
    state = f"paused since {moment(found.paused_at)}" if found.paused_at else f"next: {_next(found)}"
    click.echo(f"  {found.cron} ({found.zone}), {state}")
    if found.run_at:
        click.echo("  a worker runs it now")
    emit_table(runs, {"DUE": lambda run: run.due_at, "IMPORT": _import_of, "RESULT": lambda run: run.result},
               empty="  no runs yet")  # fmt: skip


def _import_of(run: "Run") -> str:
    return str(run.import_id or "")


def _next(found: "ImportSchedule") -> str:
    if found.paused_at:
        return ""
    return moment(found.next_at) if found.next_at else "never"


@click.command("schedules")
@as_json
@asynchronous
async def list_schedules(json_output: bool) -> None:
    """List the recurring imports.

    Each is shown with its last result.
    """
    from coupons.store import import_schedules

    async with database() as connection:
        found = await import_schedules.list_all(connection)
    if json_output:
        emit_json(found)
        return
    columns = {
        "NAME": lambda row: row.name,
        "WHEN": lambda row: f"{row.cron} ({row.zone})",
        "INTO": lambda row: row.target,
        "STATE": lambda row: "paused" if row.paused_at else "active",
        "NEXT": _next,
        "LAST RUN": lambda row: row.last_run.due_at if row.last_run else None,
        "RESULT": lambda row: row.last_run.result if row.last_run else "",
    }
    emit_table(found, columns, empty="no recurring imports yet: coupons import schedule NAME --cron …")


@click.command("unschedule")
@click.argument("name")
@yes_option
@asynchronous
async def unschedule_import(name: str, yes: bool) -> None:
    """Delete a recurring import.

    Its definition and its runs are deleted; what it has imported stays. `coupons import schedule NAME --pause` keeps
    them.
    """
    from coupons.names import parse_name
    from coupons.store import import_schedules

    async with database() as connection:
        found = await import_schedules.get(connection, parse_name(name))
        confirm_deletion(f"Delete recurring import {found.name} and its runs? What it has imported stays.", yes=yes)
        await import_schedules.delete(connection, found.name)
    click.echo(f"recurring import {found.name} deleted")
