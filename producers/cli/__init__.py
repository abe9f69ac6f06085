"""`coupons`: everything a person or a script can ask of the system.

`coupons --help` answers in under 0.25 s: modules of this package import only click and the standard library; what a
command needs is imported when it runs.
"""

import os

import click

from coupons import __version__
from producers.cli.groups import groups
from producers.cli.imports import import_file
from producers.cli.lists import lists
from producers.cli.messages import messages
from producers.cli.outbox import outbox, show
from producers.cli.ready import ready
from producers.cli.restore_guard import restore_guard
from producers.cli.sendouts import cancel, pause, resume, send
from producers.cli.system import completion, demo, doctor, migrate, web, worker
from producers.cli.uncertain import uncertain
from producers.cli.verify import verify
from producers.cli.who import who

EPILOG = """\b
The main story:
  coupons migrate
  coupons list create spring-10
  coupons import codes.txt --list spring-10 --wait
  coupons group import customers.csv --group customers --wait
  coupons message save spring-voucher --subject "Your voucher" --text mail.txt --html mail.html --from shop@example.org
  coupons send --message spring-voucher --group customers --wait

\b
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with rejected lines, 4 interrupted for want of codes."""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="coupons")
@click.pass_context
def main(context: click.Context) -> None:
    """Mail every recipient a coupon code of their own: never a code twice, never a mail without its code.

    Settings come from COUPONS_DATABASE_URL, COUPONS_BROKER_URL, COUPONS_SMTP_URL and others
    (docs/reference/settings.md). Results go to stdout, progress and errors to stderr; listings take --json.
    """
    if os.environ.get("NO_COLOR"):  # no-color.org; click itself only looks whether it writes to a terminal
        context.color = False


for command in (
    lists, import_file, groups, messages, send, outbox, show, resume, pause, cancel, uncertain, who, verify,
    worker, web, ready, migrate, restore_guard, doctor, demo, completion,
):  # fmt: skip
    main.add_command(command)
