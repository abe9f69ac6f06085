"""Measures on real services on this machine; each figure goes into bench/results.json under its name.

`python -m bench` measures everything, `python -m bench sending [--only engine,latency]` how fast sending is (or parts
of that), `python -m bench report` writes the table of docs/performance.md. Absolute figures are this machine's of this
minute: compare ratios, whose two sides are measured by turns.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from bench import foundation, report, sending
from producers.demo.services import Services, private_services
from tests import postfix


def main() -> None:
    options = arguments()
    if options.what != "report":
        measure(Path(".bench").absolute(), foundations=options.what == "all", parts=options.only)
    report.write()


def measure(folder: Path, *, foundations: bool, parts: list[str]) -> None:
    """The two halves get services of their own, so that neither finds what the other left."""
    postfix.install(say)
    if foundations:
        with private_services(folder, say=say) as services:
            keep(asyncio.run(foundation.measure(services, folder)))
    with private_services(folder, say=say) as services:
        asyncio.run(measure_sending(services, folder, parts))


async def measure_sending(services: Services, folder: Path, parts: list[str]) -> None:
    async for figures in sending.measure(services, folder, parts):
        keep(figures)


def keep(figures: dict[str, float]) -> None:
    """Prints the figures and puts them in the place of those of the same names."""
    rounded = {name: round(figure, 3 if figure < 100 else None) for name, figure in figures.items()}
    for name, figure in rounded.items():
        print(f"{name:34} {figure:>12,}")
    known = json.loads(report.RESULTS.read_text(encoding="utf-8")) if report.RESULTS.exists() else {}
    report.RESULTS.write_text(json.dumps(known | rounded, indent=2) + "\n", encoding="utf-8")


def say(line: str) -> None:
    print(line, file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "sending", "report"), default="all")
    parser.add_argument(
        "--only", type=parts, default=list(sending.PARTS), metavar="PART,…", help=f"of {', '.join(sending.PARTS)}"
    )
    return parser.parse_args()


def parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(sending.PARTS):
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    main()
