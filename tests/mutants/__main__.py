"""`python -m tests.mutants [NAME…]` removes each constraint, fence and intent in turn. Each removal must fail a test.

NAME may contain wildcards. `--times 10` runs each mutant ten times, which finds tests that catch a race only sometimes.
The exit code is 1 if a mutant survives a run or is broken.
"""

import asyncio
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from itertools import islice
from queue import SimpleQueue

from click import echo

from coupons.database import connect
from coupons.migrate import migrate
from tests.mutants import constraints
from tests.mutants.mutant import Mutant, StaleError, patches
from tests.mutants.runner import BaselineError, Fate, Runner, Verdict, open_runner
from tests.services import database


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only these mutants; wildcards allowed")
    parser.add_argument("--list", action="store_true", help="list the mutants without running them")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="run each mutant N times [default: 1]")
    options = parser.parse_args()
    with open_runner() as runner:
        mutants = select([*patches(), *removals(runner)], options.names)
        if options.list:
            for mutant in mutants:
                echo(f"{mutant.name:40} {mutant.file:45} {mutant.why}")
            for name, why in constraints.EXEMPT.items():
                echo(f"{name:40} {'exempt':45} {why}")
            return 0
        try:
            echo(f"{len(mutants)} mutants; their tests pass on the unchanged code in {runner.check(mutants):.0f} s")
            return summarize([report(verdicts) for verdicts in run_all(runner, mutants, options.times)])
        except (BaselineError, StaleError) as error:
            echo(error, err=True)
            return 1


def removals(runner: Runner) -> list[Mutant]:
    """One mutant for each constraint, trigger and index of the database. The mutant removes it."""

    async def read() -> list[Mutant]:
        async with database(runner.lanes[0]["COUPONS_TEST_DATABASE_URL"]) as url:
            await migrate(url)
            async with connect(url) as connection:
                return [constraints.removal_of(guard) for guard in await constraints.guards(connection)]

    return asyncio.run(read())


def select(mutants: Sequence[Mutant], names: Sequence[str]) -> list[Mutant]:
    return [mutant for mutant in mutants if not names or any(fnmatch(mutant.name, name) for name in names)]


def run_all(runner: Runner, mutants: Sequence[Mutant], times: int) -> Iterator[list[Verdict]]:
    """Run each mutant the given number of times, one run per lane at a time; yield the verdicts of each mutant."""
    lanes: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for lane in runner.lanes:
        lanes.put(lane)

    def run(mutant: Mutant) -> Verdict:
        lane = lanes.get()
        try:
            return runner.run(mutant, lane)
        finally:
            lanes.put(lane)

    with ThreadPoolExecutor(len(runner.lanes)) as threads:
        verdicts = threads.map(run, (mutant for mutant in mutants for _ in range(times)))
        for _ in mutants:
            yield list(islice(verdicts, times))


def report(verdicts: Sequence[Verdict]) -> Verdict:
    """Print a line about the runs of a mutant; return the first one that did not catch it, else the first one."""
    missed = [each for each in verdicts if not each.caught]
    worst = (missed or verdicts)[0]
    runs = f"{len(verdicts) - len(missed)} of {len(verdicts)}  " if len(verdicts) > 1 else ""
    seconds = max(each.seconds for each in verdicts)
    guards = f"; no test guards: {worst.mutant.why}" if worst.fate is Fate.SURVIVED else ""
    echo(f"{worst.mutant.name:40} {worst.fate.value:10} {runs}{seconds:5.1f} s  {worst.by}{guards}")
    return worst


def summarize(verdicts: Sequence[Verdict]) -> int:
    alive = [each.mutant.name for each in verdicts if not each.caught]
    echo(
        f"{len(verdicts)} mutants, {len(verdicts) - len(alive)} caught"
        + "".join(f"; not caught: {name}" for name in alive)
    )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
