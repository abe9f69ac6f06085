"""Runs benchmarks on real services on this machine, and writes each figure under its name into bench/results.json.

`python -m bench` runs all benchmarks. `python -m bench sending`, `importing` and `preparing` run those of one area,
with `--only engine,latency` only these parts of it. `python -m bench report` writes the tables of
docs/explanation/performance.md. Absolute figures vary with the machine and its load, so compare the ratios: their two
sides are measured alternately.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from types import ModuleType

from bench import foundation, importing, preparing, report, sending
from sandbox.services import Services, private_services
from tests import postfix

AREAS = {"sending": sending, "importing": importing, "preparing": preparing}


def main() -> None:
    options = arguments()
    folder = Path(".bench").absolute()
    if options.what == "all":
        with private_services(folder, say=say) as services:
            record(asyncio.run(foundation.measure(services, folder)))
    for name, area in AREAS.items():
        if options.what in ("all", name):
            measure(area, folder, options.only or list(area.PARTS))
    report.write()


def measure(area: ModuleType, folder: Path, parts: list[str]) -> None:
    """Measure the parts of an area with new services, so that no area affects another."""
    if area is sending:
        postfix.install(say)

    async def run(services: Services) -> None:
        async for figures in area.measure(services, folder, parts):
            record(figures)

    with private_services(folder, say=say) as services:
        asyncio.run(run(services))


def record(figures: dict[str, float]) -> None:
    """Print the figures, and write them over the previous figures with the same names."""
    rounded = {name: round(figure, 3 if figure < 100 else None) for name, figure in figures.items()}
    for name, figure in rounded.items():
        print(f"{name:34} {figure:>12,}")
    known = json.loads(report.RESULTS.read_text(encoding="utf-8")) if report.RESULTS.exists() else {}
    report.RESULTS.write_text(json.dumps(known | rounded, indent=2) + "\n", encoding="utf-8")


def say(line: str) -> None:
    print(line, file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", *AREAS, "report"), default="all")
    known = "; ".join(f"{name}: {', '.join(area.PARTS)}" for name, area in AREAS.items())
    parser.add_argument(
        "--only", type=lambda text: text.split(","), metavar="PART,…", help=f"measure only these parts; {known}"
    )
    options = parser.parse_args()
    area = AREAS.get(options.what)
    if options.only and (area is None or (unknown := set(options.only) - set(area.PARTS))):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}" if area else "--only needs an area")
    return options


if __name__ == "__main__":
    main()
