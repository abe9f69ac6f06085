"""`--wait`: follow a job to its end, with a progress bar on a terminal's stderr and nothing elsewhere."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from producers.durations import lasting

FIRST_POLL_SECONDS, POLL_SECONDS = 0.05, 0.25
PATIENCE_SECONDS = 10
"""Then it is said that no worker has taken the command yet."""

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, in whatever it counts; `total` None while that is not known.

    A job that does not know its own speed is given the one that was seen.
    """

    done: int
    total: int | None
    state: str
    ended: bool
    per_second: float | None = None
    seconds_left: float | None = None
    amount: str | None = None
    """`done` of `total` in words, where bare numbers say little."""
    unit: str = ""
    """Of what `per_second` counts."""


async def follow(
    look: Callable[[], Awaitable[Job | None]], progress_of: Callable[[Job], Progress], *, title: str
) -> Job:
    """Look until the job has ended, and return it as it is then."""
    waited, pause, patient = 0.0, FIRST_POLL_SECONDS, True
    with bar(title) as show:
        while True:
            job = await look()
            if job is not None:
                progress = progress_of(job)
                show(progress)
                if progress.ended:
                    return job
            elif patient and waited >= PATIENCE_SECONDS:
                click.echo("no worker has taken the command yet; is one running? (coupons worker)", err=True)
                patient = False
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, POLL_SECONDS)


@contextmanager
def bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """Yields what shows a progress: on a terminal's stderr, elsewhere nowhere."""
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
            seen = bar.tasks[0]
            speed = progress.per_second if progress.unit else progress.per_second or seen.finished_speed or seen.speed
            left = progress.seconds_left or seen.time_remaining
            unit = f" {progress.unit}" if progress.unit else ""
            bar.update(task, rate=f"{speed:,.0f}{unit}/s" if speed else "", left=lasting(left) if left else "")

        yield show
