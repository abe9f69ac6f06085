"""Renders the table of docs/explanation/reliability.md: each fault, how often it was injected, and the result.

`python -m tests.faults.report PAGE ROWS…` joins the files with the rows of several sessions, prints the table and
writes it into the page.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults.lab import FaultResult

BEGIN = "<!-- begin: make faults -->"
END = "<!-- end: make faults -->"
HEADER = ("Fault", "Rounds", "Mails", "Lost", "Duplicates", "Two codes", "Uncertain", "Recovery (s)")


def render(rows: Sequence[FaultResult]) -> str:
    """Return a Markdown table. Its last row has the sums and the longest recovery."""
    lines = [f"| {' | '.join(HEADER)} |", f"|---|{'---:|' * (len(HEADER) - 1)}"]
    return "\n".join([*lines, *map(_line, rows), _line(_sum(rows))])


def _line(row: FaultResult) -> str:
    recovered = "—" if row.recovered_seconds is None else f"{row.recovered_seconds:.1f}"
    numbers = (row.rounds, row.mails, row.lost, row.duplicates, row.two_codes, row.uncertain)
    return f"| {' | '.join([row.fault, *(f'{number:,}' for number in numbers), recovered])} |"


def _sum(rows: Sequence[FaultResult]) -> FaultResult:
    recovered = [row.recovered_seconds for row in rows if row.recovered_seconds is not None]
    return FaultResult(
        "**total**",
        rounds=sum(row.rounds for row in rows),
        mails=sum(row.mails for row in rows),
        lost=sum(row.lost for row in rows),
        duplicates=sum(row.duplicates for row in rows),
        two_codes=sum(row.two_codes for row in rows),
        uncertain=sum(row.uncertain for row in rows),
        recovered_seconds=max(recovered, default=None),
    )


def save(file: Path, rows: Sequence[FaultResult]) -> None:
    """Write one JSON line per row."""
    file.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows), encoding="utf-8")


def load(file: Path) -> list[FaultResult]:
    return [FaultResult(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def write(page: Path, rows: Sequence[FaultResult]) -> None:
    """Replace the table between the two marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{render(rows)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    page, *files = map(Path, sys.argv[1:])
    rows = [row for file in files for row in load(file)]
    write(page, rows)
    print(render(rows))  # noqa: T201 - the program's output


if __name__ == "__main__":
    main()
