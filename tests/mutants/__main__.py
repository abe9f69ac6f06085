"""`python -m tests.mutants [NAME…]`: take each constraint, fence and intent away in turn; some test must fail for each.

A NAME may have wildcards. Ends with 1 if a mutant survives, or is a mistake.
"""

import asyncio
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from queue import SimpleQueue

from click import echo

from coupons.database import connected
from coupons.migrate import migrate
from tests.mutants import constraints
from tests.mutants.laboratory import Fate, Laboratory, LaboratoryError, Verdict, laboratory
from tests.mutants.mutant import Mutant, StaleError, patches
from tests.services import database


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; with wildcards")
    parser.add_argument("--list", action="store_true", help="only list them")
    options = parser.parse_args()
    with laboratory() as lab:
        mutants = chosen([*patches(), *removals(lab)], options.names)
        if options.list:
            for mutant in mutants:
                echo(f"{mutant.name:40} {mutant.file:45} {mutant.why}")
            for name, why in constraints.EXEMPT.items():
                echo(f"{name:40} {'exempt':45} {why}")
            return 0
        try:
            echo(f"{len(mutants)} mutants; with nothing taken away, their tests pass in {lab.check(mutants):.0f} s")
            return summary([told(verdict) for verdict in tried_out(lab, mutants)])
        except (LaboratoryError, StaleError) as error:
            echo(error, err=True)
            return 1


def removals(lab: Laboratory) -> list[Mutant]:
    """What the database refuses, each thing removed."""

    async def read() -> list[Mutant]:
        async with database(lab.lanes[0]["COUPONS_TEST_DATABASE_URL"]) as url:
            await migrate(url)
            async with connected(url) as connection:
                return [constraints.without(guard) for guard in await constraints.guards(connection)]

    return asyncio.run(read())


def chosen(mutants: Sequence[Mutant], names: Sequence[str]) -> list[Mutant]:
    return [mutant for mutant in mutants if not names or any(fnmatch(mutant.name, name) for name in names)]


def tried_out(lab: Laboratory, mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    """As many at a time as there are lanes."""
    lanes: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for lane in lab.lanes:
        lanes.put(lane)

    def try_out(mutant: Mutant) -> Verdict:
        lane = lanes.get()
        try:
            return lab.try_out(mutant, lane)
        finally:
            lanes.put(lane)

    with ThreadPoolExecutor(len(lab.lanes)) as threads:
        yield from threads.map(try_out, mutants)


def told(verdict: Verdict) -> Verdict:
    mutant = verdict.mutant
    guards = f"; what it lacks: {mutant.why}" if verdict.fate is Fate.SURVIVED else ""
    echo(f"{mutant.name:40} {verdict.fate.value:10} {verdict.seconds:5.1f} s  {verdict.by}{guards}")
    return verdict


def summary(verdicts: Sequence[Verdict]) -> int:
    alive = [each.mutant.name for each in verdicts if each.fate in (Fate.SURVIVED, Fate.BROKEN)]
    echo(f"{len(verdicts)} mutants, {len(verdicts) - len(alive)} caught" + "".join(f"; not {name}" for name in alive))
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
