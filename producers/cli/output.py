"""Results on stdout: aligned tables for people, JSON for programs."""

import dataclasses
import json
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from coupons.files.rejections import Rejected

REJECTED_SHOWN = 5
COLOURS = {
    "finished": "green",
    "sent": "green",
    "scheduled": "cyan",
    "sending": "cyan",
    "interrupted": "yellow",
    "paused": "yellow",
    "stalled": "yellow",
    "uncertain": "yellow",
    "failed": "red",
    "refused": "red",
    "cancelled": "red",
}

IMPORT_COLUMNS: Mapping[str, Callable[[Any], object]] = {
    "IMPORT": lambda row: row.id,
    "MODE": lambda row: row.mode,
    "STATE": lambda row: row.state,
    "ADDED": lambda row: row.added,
    "REMOVED": lambda row: row.removed,
    "REJECTED": lambda row: row.rejected,
    "WHEN": lambda row: row.created_at,
}
"""The imports of a list or a group."""

as_json = click.option("--json", "json_output", is_flag=True, help="Print JSON instead of text.")


def emit_json(value: Any) -> None:
    """Print a dataclass or a list of them as JSON; times in ISO 8601, ids as text."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, default=_json_text))


def emit_table(rows: Iterable[Any], columns: Mapping[str, Callable[[Any], object]], *, empty: str) -> None:
    """Print one line per row, with numbers right-aligned. Without any row, print `empty` on stderr."""
    cells = [[column(row) for column in columns.values()] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    texts = [[_text(cell) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    numeric = [all(isinstance(cell, int | None) for cell in column) for column in zip(*cells, strict=True)]
    click.echo(click.style(_line(list(columns), widths, numeric), bold=True))
    for row in texts:
        click.echo(_line(row, widths, numeric))


def limit_option(default: int) -> Callable[[Any], Any]:
    """The option for the number of rows of a long listing."""
    return click.option("--limit", type=click.IntRange(1, 10_000), default=default, show_default=True, metavar="N",
                        help="Show at most N.")  # fmt: skip


def emit_next(command: str, *options: object) -> None:
    """Print on stderr the command that shows the next rows of a listing."""
    click.echo(f"more: coupons {command} {' '.join(map(str, options))}", err=True)


def emit_warnings(warnings: Iterable[str]) -> None:
    """Print what is probably a mistake, one line each, on stderr."""
    for warning in warnings:
        click.echo(f"coupons: warning: {warning}", err=True)


async def emit_csv(rows: AsyncIterable[Any], columns: Mapping[str, Callable[[Any], object]]) -> None:
    """Stream the rows as CSV for a spreadsheet: with a byte order mark, and no cell can run as a formula."""
    click.echo(f"\ufeff{';'.join(columns)}\r\n", nl=False)
    async for row in rows:
        click.echo(";".join(_cell(column(row)) for column in columns.values()) + "\r\n", nl=False)


def emit_rejected(first: "Sequence[Rejected]", total: int, *, rest: str) -> None:
    """Print the first rejected lines on stderr, without their codes or addresses, because stderr is often a log.

    `rest` is the command that prints all of them.
    """
    for each in first[:REJECTED_SHOWN]:
        click.echo(f"  line {each.line}: {each.sentence}", err=True)
    if total > REJECTED_SHOWN:
        click.echo(f"  … {total - REJECTED_SHOWN:,} more: {rest}", err=True)


def emit_reasons(reasons: Mapping[str, int], *, rest: str) -> None:
    """Print on stderr why codes or recipients were not restored. They have no lines, because an undo reads no file."""
    for reason, number in reasons.items():
        click.echo(f"  not restored: {number:,} {reason}", err=True)
    if reasons:
        click.echo(f"  all of them: {rest}", err=True)


def coloured(state: str) -> str:
    return click.style(state, fg=COLOURS.get(state))


def amount(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def counted(number: int | None, noun: str, plural: str = "") -> str:
    """Return `1 mail`, `2 mails` or `? mails`. `plural` is needed if it is not the noun with an s."""
    return f"{amount(number)} {noun if number == 1 else plural or f'{noun}s'}"


def describe_kept(reserved: int, assigned: int) -> Iterator[str]:
    """Yield a line about the codes that an import could not remove, if there are any."""
    kept = {"reserved for sendouts": reserved, "assigned to recipients": assigned}
    if any(kept.values()):
        yield f"not removed: {', '.join(f'{amount(number)} {why}' for why, number in kept.items() if number)}"


def describe_reading(read_as: str | None, notices: Iterable[str]) -> Iterator[str]:
    """Yield how a file was read, and what was assumed, skipped, cut or left out, one line each."""
    if read_as:
        yield f"read as {read_as}"
    yield from (f"notice: {notice}" for notice in notices)


def mark(ok: bool) -> str:
    """A green tick or a red cross."""
    return click.style("✓", fg="green") if ok else click.style("✗", fg="red")


def moment(at: datetime) -> str:
    """Return the time as text, in this machine's time zone, which the text names."""
    from producers.local_time import format_time

    return format_time(at)


def _cell(value: object) -> str:
    from coupons.files.rejections import csv_cell

    if value is None or isinstance(value, int | float):
        return "" if value is None else str(value)
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return csv_cell(text)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(cells, widths, numeric, strict=True))
    line = "  ".join(padded).rstrip()
    for state, colour in COLOURS.items():
        if state in cells:
            line = line.replace(state, click.style(state, fg=colour))
    return line


def _text(cell: object) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case int():
            return f"{cell:,}"
        case datetime():
            return moment(cell)
        case list() | tuple():
            return ", ".join(map(str, cell))
    return str(cell)


def _json_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value
