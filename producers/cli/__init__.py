"""`coupons`: the command line. Each command is in the module of its name; the rest of the package is shared.

`coupons --help` takes less than 0.25 s, because modules of this package import only click and the standard library.
Everything else is imported when a command runs.
"""

import os
from itertools import chain
from typing import Any

import click

from coupons import __version__
from producers.cli.closed_output import reporting_closed_output
from producers.cli.group import Group
from producers.cli.groups import groups
from producers.cli.import_again import retry_import, undo_import
from producers.cli.import_schedules import list_schedules, schedule_import, unschedule_import
from producers.cli.imports import imports
from producers.cli.lists import lists
from producers.cli.messages import messages
from producers.cli.outbox import outbox
from producers.cli.ready import ready
from producers.cli.restore_guard import restore_guard
from producers.cli.retry import retry
from producers.cli.runtime import check_zone, report_internal_errors
from producers.cli.schedule import reschedule
from producers.cli.sendouts import cancel, pause, resume, send
from producers.cli.show import show
from producers.cli.system import completion, demo, doctor, migrate, web, worker
from producers.cli.uncertain import uncertain
from producers.cli.verify import verify
from producers.cli.who import who

EPILOG = """\b
Typical workflow:
  coupons migrate
  coupons worker &
  coupons list create spring-10
  coupons import codes.txt --list spring-10 --wait
  coupons group import customers.csv --group customers --wait
  coupons message save spring-voucher --subject "Your voucher" \\
    --text mail.txt --html mail.html --from shop@example.org
  coupons send --message spring-voucher --group customers --wait

\b
Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  done, but some lines were rejected
  4  not enough codes: sendout interrupted, or nothing retried
  5  sendout finished with refused or uncertain mails"""

SECTIONS = {
    "Codes, recipients, messages": (lists, imports, groups, messages),
    "Sendouts": (send, outbox, show, resume, pause, reschedule, cancel, retry, uncertain, who),
    "Operation": (migrate, worker, web, ready, doctor, verify, restore_guard, demo, completion),
}


for command in (undo_import, retry_import, schedule_import, list_schedules, unschedule_import):
    imports.add_command(command)


class Main(Group):
    """Lists its commands in sections, in the order of their use. Ends silently if its output is a closed pipe."""

    def main(self, *args: Any, **extra: Any) -> Any:
        with reporting_closed_output():  # also while click reports an error
            return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with reporting_closed_output():  # before click sees the error: it would exit with code 1
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with reporting_closed_output():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for title, section in SECTIONS.items():
            with formatter.section(title):
                rows = [((command.name or "").ljust(width), command.get_short_help_str(limit)) for command in section]
                formatter.write_dl(rows)


@click.group(
    cls=Main, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="coupons")
@click.pass_context
def main(context: click.Context) -> None:
    """Send coupon codes by mail: every recipient gets a code of their own, no code is sent twice.

    Settings are environment variables: COUPONS_DATABASE_URL, COUPONS_BROKER_URL, COUPONS_SMTP_URL and others
    (docs/reference/settings.md). Results are written to stdout, progress and errors to stderr. Most commands have
    --json.
    """
    if os.environ.get("NO_COLOR"):  # no-color.org; click itself only checks for a terminal
        context.color = False
    report_internal_errors()
    check_zone()


for command in chain.from_iterable(SECTIONS.values()):
    main.add_command(command)
