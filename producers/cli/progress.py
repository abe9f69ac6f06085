"""`--wait` and `--timeout`: follow a job until it ends.

The progress is shown on stderr: as a bar on a terminal, otherwise as a line every LINE_SECONDS.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from producers.cli.runtime import StillRunning
from producers.durations import format_duration, parse_seconds

FIRST_POLL_SECONDS, POLL_SECONDS = 0.05, 0.25
NO_WORKER_SECONDS = 10
"""If no worker has accepted the command by then, ask whether one is running."""
LINE_SECONDS = 10.0
"""The interval of the lines that show the progress where stderr is not a terminal."""

Job = TypeVar("Job")


class Seconds(click.ParamType[float]):
    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = parse_seconds(value)
        if seconds is None:
            self.fail(f"{value!r} is not a duration: write 30s, 10m, 2h or 1h30m", param, ctx)
        return float(seconds)


timeout_option = click.option(
    "--timeout", "timeout_seconds", type=Seconds(), metavar="DURATION", help="With --wait: stop waiting after DURATION,"
    " as 30s, 10m or 2h, with exit code 6. The job continues.")  # fmt: skip


def check_timeout(timeout_seconds: float | None, *, wait: bool) -> None:
    """Raise UsageError if there is a timeout although the command does not wait."""
    if timeout_seconds is not None and not wait:
        raise click.UsageError("--timeout needs --wait")


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a job is done, in any unit; `total` is None while it is unknown."""

    done: float
    total: float | None
    state: str
    ended: bool = False
    amount: str = ""
    """`done` and `total` as text."""
    rate: str = ""
    seconds_left: float | None = None
    measured: bool = False
    """Whether the bar measures the time left, because the job does not know it."""

    @property
    def line(self) -> str:
        left = f"{format_duration(self.seconds_left)} left" if self.seconds_left else ""
        return ", ".join(filter(None, (self.amount, self.rate, left, self.state)))


NOT_ACCEPTED = Progress(0, None, "waiting for a worker to accept the command")


async def follow(
    look: Callable[[], Awaitable[Job | None]], progress_of: Callable[[Job], Progress], *,
    title: str, timeout_seconds: float | None = None, again: str,
) -> Job:  # fmt: skip
    """Poll until the job has ended, and return its last state. `look` returns None until a worker has accepted it.

    Raises StillRunning after the timeout; `again` is the command that follows the job again.
    """
    begun, pause, asked = time.monotonic(), FIRST_POLL_SECONDS, False
    with bar(title) as show:
        while True:
            job = await look()
            progress = NOT_ACCEPTED if job is None else progress_of(job)
            show(progress)
            if job is not None and progress.ended:
                return job
            waited = time.monotonic() - begun
            if timeout_seconds is not None and waited >= timeout_seconds:
                raise StillRunning(_still_running(timeout_seconds, again, accepted=job is not None))
            if job is None and not asked and waited >= NO_WORKER_SECONDS:
                click.echo("no worker has accepted the command yet; is one running? (coupons worker)", err=True)
                asked = True
            left = pause if timeout_seconds is None else timeout_seconds - waited
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, POLL_SECONDS)


def _still_running(seconds: float, again: str, *, accepted: bool) -> str:
    after = f"stopped waiting after {format_duration(seconds)}"
    if accepted:
        return f"{after}; the job continues: follow it again with `{again}`"
    return f"{after}; the command is queued: once a worker has accepted it, follow it with `{again}`"


@contextmanager
def bar(title: str) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows a progress on stderr: in a bar on a terminal, otherwise in lines."""
    if not sys.stderr.isatty():
        yield lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    shown = ("amount", "rate", "left", "state")
    texts = [TextColumn(f"{{task.fields[{each}]}}") for each in shown]
    with Bar(TextColumn("{task.description}"), BarColumn(), *texts, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, state="waiting", rate="", left="", amount="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total)
            left = bar.tasks[0].time_remaining if progress.measured else progress.seconds_left
            shown_left = format_duration(left) if left else ""
            bar.update(task, amount=progress.amount, rate=progress.rate, left=shown_left, state=progress.state)

        yield show


def lines(title: str) -> Callable[[Progress], None]:
    """Return a function that prints a progress on stderr, at most once every LINE_SECONDS."""
    printed = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal printed
        if time.monotonic() >= printed + LINE_SECONDS:
            printed = time.monotonic()
            click.echo(f"{title}: {progress.line}", err=True)

    return show
