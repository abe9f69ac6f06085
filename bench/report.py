"""`python -m bench report` writes the tables of docs/explanation/performance.md. It reads only bench/results.json."""

import json
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
BEGIN = "<!-- begin: python -m bench report -->"
END = "<!-- end: python -m bench report -->"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: a figure, its target and, for a ratio, the absolute figures that it compares."""

    figure: str
    meaning: str
    target: str
    ours: str = ""
    baseline: str = ""


ROWS = (
    Row("engine_vs_smtp_source", "SMTP engine alone, compared with `smtp-source`", "≥ 1.0", "engine_mails_per_s",
        "smtp_source_mails_per_s"),
    Row("end_to_end_vs_smtp_source", "end to end, compared with `smtp-source`", "≥ 0.35",
        "end_to_end_smtp_sink_mails_per_s", "smtp_source_mails_per_s"),
    Row("end_to_end_vs_naive", "end to end, compared with one job per recipient", "≥ 15",
        "end_to_end_smtp_sink_mails_per_s", "naive_mails_per_s"),
    Row("end_to_end_vs_post_office", "end to end, compared with django-post-office", "≥ 5",
        "end_to_end_smtp_sink_mails_per_s", "post_office_mails_per_s"),
    Row("postfix_relay_vs_smtp_source", "into Postfix's on-disk queue, compared with `smtp-source`", "≥ 0.7",
        "postfix_relay_mails_per_s", "postfix_smtp_source_mails_per_s"),
    Row("latency_20ms_mails_per_s", "mails/s with 20 ms of latency in each direction", "≥ 200"),
    Row("flat_1m_vs_50k", "a million recipients, compared with 50,000", "≥ 0.8", "million_mails_per_s",
        "end_to_end_smtp_sink_mails_per_s"),
    Row("worker_rss_mib", "peak memory of a worker, MiB", "≤ 200"),
    Row("two_workers_vs_one", "two workers, compared with one", "≥ 1.0", "two_workers_mails_per_s",
        "one_worker_mails_per_s"),
)  # fmt: skip
IMPORT_ROWS = (
    Row("import_vs_copy", "a million new codes, compared with `COPY`", "≥ 0.5", "import_codes_per_s",
        "copy_codes_per_s"),
    Row("reimport_vs_first", "the same million codes again, compared with the first import", "≥ 3",
        "reimport_codes_per_s", "import_codes_per_s"),
    Row("import_10m_vs_1m", "ten million codes, compared with one million", "≥ 0.7", "import_10m_codes_per_s",
        "import_codes_per_s"),
    Row("import_rss_mib", "peak memory of the worker over all imports, MiB", "≤ 150"),
    Row("recipients_vs_copy", "a million recipients with five attributes, compared with `COPY`", "≥ 0.4",
        "import_recipients_per_s", "copy_recipients_per_s"),
    Row("xlsx_rows_per_s", "rows/s of an .xlsx file with a million rows and three columns", "≥ 25,000"),
    Row("xlsx_worker_rss_mib", "peak memory of the worker during that import, MiB", "≤ 150"),
    Row("xlsx_reader_rss_mib", "peak memory of the process that reads the file for it, MiB", "≤ 150"),
)  # fmt: skip

PREPARING_ROWS = (
    Row("needs_few_us", "µs per recipient that a condition around coupons adds, with 10 different values", "≤ 5",
        "snapshot_few_us", "snapshot_without_us"),
    Row("needs_all_us", "the same, with a different value for each recipient", "≤ 5", "snapshot_all_us",
        "snapshot_without_us"),
)  # fmt: skip


def table(rows: tuple[Row, ...], unit: str, figures: dict[str, float]) -> str:
    """Return a Markdown table. A figure that was not measured is shown as a dash."""

    def shown(name: str) -> str:
        return f"{figures[name]:,}" if name in figures else "—"

    lines = [f"| What | Target | Measured | {unit} | Baseline | Name |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        ours, baseline = (shown(name) if name else "" for name in (row.ours, row.baseline))
        lines.append(f"| {row.meaning} | {row.target} | {shown(row.figure)} | {ours} | {baseline} | `{row.figure}` |")
    return "\n".join(lines)


def cores(figures: dict[str, float]) -> str:
    prefix = "end_to_end_cores_"
    used = [f"{name.removeprefix(prefix)} {figures[name]:.2f}" for name in figures if name.startswith(prefix)]
    return f"Cores in use during a sendout to `smtp-sink`: {', '.join(used)}." if used else ""


AREAS = {
    "mail": "rendering and encoding mails (`coupons/mail`, `coupons/templates`)",
    "smtp_write": "handing mails to the kernel: one write per mail",
    "smtp_session": "the SMTP session, pools and queue (`coupons/smtp`)",
    "database": "codes, intents and outcomes (`coupons/store`, asyncpg)",
    "delivery": "in-flight window, batches, leases (`workers`)",
    "event_loop": "waiting for sockets and reading from them (uvloop)",
    "other": "everything else",
}


def profile(figures: dict[str, float]) -> str:
    """Return a Markdown table of a worker's time while it sends."""
    rows = [f"| {meaning} | {100 * figures[f'profile_{area}']:.0f} % |" for area, meaning in AREAS.items()
            if f"profile_{area}" in figures]  # fmt: skip
    return "\n".join(["| A worker's time while it sends | Share |", "|---|---:|", *rows]) if rows else ""


def write() -> None:
    """Replace the marked block of the page. The text around it is written manually."""
    figures = json.loads(RESULTS.read_text(encoding="utf-8"))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    parts = (
        BEGIN, table(ROWS, "Mails/s", figures), cores(figures), profile(figures),
        table(IMPORT_ROWS, "Lines/s", figures), table(PREPARING_ROWS, "µs", figures), END,
    )  # fmt: skip
    block = "\n\n".join(filter(None, parts))
    PAGE.write_text(f"{before}{block}{after}", encoding="utf-8")
