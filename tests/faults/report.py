"""The table of docs/explanation/reliability.md: what was done, how often, and what came of it.

`python -m tests.faults.report PAGE ROWS…` prints that of several sessions, and puts it into the page.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults.lab import Row

BEGIN = "<!-- begin: make faults -->"
END = "<!-- end: make faults -->"
HEADER = ("Fault", "Rounds", "Mails", "Lost", "Twice", "Two codes", "Uncertain", "Seconds to recover")


def printed(rows: Sequence[Row]) -> str:
    """Markdown, with the sums of what can be added up; recovery is the longest."""
    lines = [f"| {' | '.join(HEADER)} |", f"|---|{'---:|' * (len(HEADER) - 1)}"]
    return "\n".join([*lines, *map(_line, rows), _line(_sum(rows))])


def _line(row: Row) -> str:
    recovered = "—" if row.recovered_seconds is None else f"{row.recovered_seconds:.1f}"
    numbers = (row.rounds, row.mails, row.lost, row.twice, row.two_codes, row.uncertain)
    return f"| {' | '.join([row.fault, *(f'{number:,}' for number in numbers), recovered])} |"


def _sum(rows: Sequence[Row]) -> Row:
    recovered = [row.recovered_seconds for row in rows if row.recovered_seconds is not None]
    return Row(
        "**all**",
        rounds=sum(row.rounds for row in rows),
        mails=sum(row.mails for row in rows),
        lost=sum(row.lost for row in rows),
        twice=sum(row.twice for row in rows),
        two_codes=sum(row.two_codes for row in rows),
        uncertain=sum(row.uncertain for row in rows),
        recovered_seconds=max(recovered, default=None),
    )


def keep(file: Path, rows: Sequence[Row]) -> None:
    """A JSON line each."""
    file.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows), encoding="utf-8")


def kept(file: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def write(page: Path, rows: Sequence[Row]) -> None:
    """Put the table in place of the one between the two marks."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{printed(rows)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    page, *files = map(Path, sys.argv[1:])
    rows = [row for file in files for row in kept(file)]
    write(page, rows)
    print(printed(rows))  # noqa: T201 - that is what it is called for


if __name__ == "__main__":
    main()
