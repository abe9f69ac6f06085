"""`python -m tests.mutants [NAME…]` removes each constraint, fence and intent in turn. Each removal must fail a test.

NAME may contain wildcards. The exit code is 1 if a mutant survives or is broken.
"""

import asyncio
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
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
            return summarize([report(verdict) for verdict in run_all(runner, mutants)])
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


def run_all(runner: Runner, mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    """Run one mutant per lane at a time."""
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
        yield from threads.map(run, mutants)


def report(verdict: Verdict) -> Verdict:
    mutant = verdict.mutant
    guards = f"; no test guards: {mutant.why}" if verdict.fate is Fate.SURVIVED else ""
    echo(f"{mutant.name:40} {verdict.fate.value:10} {verdict.seconds:5.1f} s  {verdict.by}{guards}")
    return verdict


def summarize(verdicts: Sequence[Verdict]) -> int:
    alive = [each.mutant.name for each in verdicts if each.fate in (Fate.SURVIVED, Fate.BROKEN)]
    echo(
        f"{len(verdicts)} mutants, {len(verdicts) - len(alive)} caught"
        + "".join(f"; not caught: {name}" for name in alive)
    )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
