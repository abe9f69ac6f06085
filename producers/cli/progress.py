"""`--wait`: follow a job until it ends, with a progress bar if stderr is a terminal."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from producers.durations import format_duration

FIRST_POLL_SECONDS, POLL_SECONDS = 0.05, 0.25
NO_WORKER_SECONDS = 10
"""If no worker has accepted the command by then, ask whether one is running."""

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a job is done, in any unit; `total` is None while it is unknown."""

    done: int
    total: int | None
    state: str
    ended: bool
    per_second: float | None = None
    """None: the bar measures the rate itself."""
    seconds_left: float | None = None
    amount: str | None = None
    """`done` and `total` as text, where bare numbers would not be clear."""
    unit: str = ""
    """What `per_second` counts."""


async def follow(
    look: Callable[[], Awaitable[Job | None]], progress_of: Callable[[Job], Progress], *, title: str
) -> Job:
    """Poll until the job has ended, and return its last state. `look` returns None until a worker has accepted it."""
    waited, pause, asked = 0.0, FIRST_POLL_SECONDS, False
    with bar(title) as show:
        while True:
            job = await look()
            if job is not None:
                progress = progress_of(job)
                show(progress)
                if progress.ended:
                    return job
            elif not asked and waited >= NO_WORKER_SECONDS:
                click.echo("no worker has accepted the command yet; is one running? (coupons worker)", err=True)
                asked = True
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, POLL_SECONDS)


@contextmanager
def bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows a progress on stderr if that is a terminal, and nothing otherwise."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    shown = ("amount", "rate", "left", "state")
    texts = [TextColumn(f"{{task.fields[{each}]}}") for each in shown]
    with Bar(TextColumn("{task.description}"), BarColumn(), *texts, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, state="waiting", rate="", left="", amount="")

        def show(progress: Progress) -> None:
            amount = progress.amount or f"{progress.done}/{'?' if progress.total is None else progress.total}"
            bar.update(task, completed=progress.done, total=progress.total, state=progress.state, amount=amount)
            measured = bar.tasks[0]
            own_rate = progress.per_second or measured.finished_speed or measured.speed
            rate = progress.per_second if progress.unit else own_rate
            left = progress.seconds_left or measured.time_remaining
            unit = f" {progress.unit}" if progress.unit else ""
            shown_left = format_duration(left) if left else ""
            bar.update(task, rate=f"{rate:,.0f}{unit}/s" if rate else "", left=shown_left)

        yield show
