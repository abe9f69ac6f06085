"""`coupons import schedule`, `schedules` and `unschedule`: imports that workers repeat."""

from typing import TYPE_CHECKING, Any

import click

from coupons.states import ImportMode
from producers.cli.confirm import yes_option
from producers.cli.files import format_options, parse_format
from producers.cli.imports import allow_empty_option
from producers.cli.output import as_json, emit_json, emit_table, limit_option, moment
from producers.cli.runtime import asynchronous, database, settings

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.recurring import RecurringImport
    from coupons.store.import_schedules import ImportSchedule, Run

EXAMPLE = """\b
Example:
  coupons import schedule nightly-codes --cron "0 3 * * *" \\
    --zone Europe/Berlin --source https://shop.example.org/codes.csv \\
    --list spring-10"""
_ACTIONS = ("pause", "resume", "now")


@click.command("schedule", epilog=EXAMPLE)
@click.argument("name")
@click.option("--cron", help="When to import: five fields, as `30 6 * * 1-5`, or @hourly, @daily, @weekly, @monthly.")
@click.option("--zone", help="Time zone of --cron, as Europe/Berlin.  [default: that of this machine]")
@click.option("--source", help="What to import: https://…, s3://bucket/key or file:///…")
@click.option("--list", "list_", help="List to import codes into.")
@click.option("--group", help="Group to import recipients into; created if missing.")
@click.option(
    "--mode", type=click.Choice([mode.value for mode in ImportMode]), help="As of `coupons import`.  [default: add]"
)
@yes_option
@allow_empty_option
@click.option("--pause", is_flag=True, help="Let no more imports begin.")
@click.option("--resume", is_flag=True, help="Let imports begin again, at the next time that matches.")
@click.option("--now", is_flag=True, help="Import now as well.")
@limit_option(20)
@format_options
@as_json
@asynchronous
async def schedule_import(
    name: str, cron: str | None, zone: str | None, source: str | None, list_: str | None, group: str | None,
    mode: str | None, yes: bool, allow_empty: bool, limit: int, format_fields: dict[str, Any], json_output: bool,
    **actions: bool,
) -> None:  # fmt: skip
    """Create, change or show a recurring import.

    With --cron, --source and --list or --group, workers repeat this import at each time that matches. An import whose
    name exists is replaced. Without these options, NAME is shown with its last runs.

    Each occurrence runs at most once, with any number of workers. If occurrences are missed because no
    worker runs, the last one runs late. An occurrence is skipped while the import before is not finished. Workers see
    changes within COUPONS_SWEEP_SECONDS.

    --yes means what it means for `coupons import`, for each of the imports.
    """
    from coupons.names import parse_name

    chosen = [action for action in _ACTIONS if actions[action]]
    fields = {"cron": cron, "zone": zone, "source": source, "list": list_, "group": group, "mode": mode,
              "format": parse_format(format_fields).model_dump(include=set(format_fields)) or None,
              "confirmed": yes or None, "allow_empty": allow_empty or None}  # fmt: skip
    given = {field: value for field, value in fields.items() if value is not None}
    if given:
        _check_definition(given, chosen)
    elif len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} cannot be combined")
    async with database() as connection:
        found = await _act(connection, parse_name(name), _request(given) if given else None, chosen)
        await _show(connection, found, limit=limit, json_output=json_output)


def _check_definition(given: dict[str, Any], chosen: list[str]) -> None:
    if missing := [f"--{option}" for option in ("cron", "source") if option not in given]:
        raise click.UsageError(f"{' and '.join(missing)} missing: a recurring import is given as a whole")
    if ("list" in given) == ("group" in given):
        raise click.UsageError("exactly one of --list and --group is required")
    if chosen not in ([], ["now"]):
        raise click.UsageError(f"--{chosen[0]} cannot be combined with --cron")


def _request(given: dict[str, Any]) -> "RecurringImport":
    from coupons.recurring import parse
    from producers.local_time import name_of_local_zone

    return parse({"zone": name_of_local_zone(), **given})


async def _act(
    connection: "Connection", name: str, request: "RecurringImport | None", chosen: list[str]
) -> "ImportSchedule":
    from coupons.store import activation, import_schedules

    if request:
        await activation.check_command(connection, request.command, activated=settings().activated)
        await import_schedules.put(connection, name, request)
    match chosen:
        case ["pause"]:
            return await import_schedules.pause(connection, name)
        case ["resume"]:
            return await import_schedules.resume(connection, name)
        case ["now"]:
            return await import_schedules.run_now(connection, name)
    return await import_schedules.get(connection, name)


async def _show(connection: "Connection", found: "ImportSchedule", *, limit: int, json_output: bool) -> None:
    from coupons.store import import_schedules

    runs = await import_schedules.list_runs(connection, found.name, limit=limit)
    if json_output:
        emit_json({"schedule": found, "runs": runs})
        return
    mode = "" if found.mode == ImportMode.ADD else f", mode {found.mode}"
    click.echo(f"recurring import {found.name}: {found.source} into {found.target}{mode}")
    click.echo(f"  {found.cron} ({found.zone}), next: {_next(found)}")
    emit_table(runs, {"DUE": lambda run: run.due_at, "IMPORT": _import_of, "RESULT": lambda run: run.result},
               empty="  no runs yet")  # fmt: skip


def _import_of(run: "Run") -> str:
    return str(run.import_id or "")


def _next(found: "ImportSchedule") -> str:
    if found.paused_at:
        return f"paused since {moment(found.paused_at)}"
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
        "NEXT": _next,
        "LAST RUN": lambda row: row.last_run.due_at if row.last_run else None,
        "RESULT": lambda row: row.last_run.result if row.last_run else "",
    }
    emit_table(found, columns, empty="no recurring imports yet: coupons import schedule NAME --cron …")


@click.command("unschedule")
@click.argument("name")
@asynchronous
async def unschedule_import(name: str) -> None:
    """Delete a recurring import.

    The log of its runs is deleted; what it has imported stays.
    """
    from coupons.names import parse_name
    from coupons.store import import_schedules

    async with database() as connection:
        await import_schedules.delete(connection, parse_name(name))
    click.echo(f"recurring import {parse_name(name)} deleted")
