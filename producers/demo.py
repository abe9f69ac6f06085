"""`coupons demo`: the typical workflow on real services, with a check of the mails in the mail sink's ledger."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import click

from producers.cli.output import mark
from producers.cli.runtime import DONE, INTERRUPTED, REJECTED_LINES
from sandbox.ledger import Ledger, Mail
from sandbox.process import ServiceError, running, wait_until
from sandbox.services import Services, private_services

COUPONS = Path(sys.executable).with_name("coupons")
DATA = next(
    folder for folder in (Path(__file__).with_name("demo_data"), Path(__file__).parents[1] / "demo") if folder.is_dir()
)
CODE = re.compile(r"SPRING-[A-Z0-9]{4}-[A-Z0-9]{4}")
WORKER_SECONDS = 30
CUSTOMERS = 1_000


def play(folder: Path, *, keep: bool) -> bool:
    """Run the workflow, and return whether the mails in the sink are correct. Raises ServiceError."""
    click.secho("Starting private PostgreSQL, RabbitMQ and a mail sink on free ports …", dim=True)
    with ExitStack() as stack:
        services = stack.enter_context(private_services(folder, say=lambda line: click.secho(line, dim=True)))
        run = _Runner(services)
        run("migrate")
        stack.enter_context(_worker(services, folder.absolute() / "worker.log"))
        ok = _run_workflow(run, services)
        if keep:
            _keep(services)
    return ok


def _run_workflow(run: "_Runner", services: Services) -> bool:
    sendout = str(uuid4())
    _say("Import a list of 600 codes and a group of 1,000 customers, and save a message.")
    run("list", "create", "spring-10", "--description", "10% off everything")
    run("import", f"{DATA}/spring-codes.txt", "--list", "spring-10", "--wait")
    run("group", "import", f"{DATA}/customers.csv", "--group", "customers", "--wait", expect=REJECTED_LINES)
    run(
        "message", "save", "spring-voucher", "--subject", "{{ first_name }}, your spring voucher",
        "--text", f"{DATA}/message.txt", "--html", f"{DATA}/message.html", "--from", "Garden Shop <shop@example.org>",
    )  # fmt: skip
    _say("600 codes are too few for 1,000 customers: the sendout is interrupted before any mail is sent.")
    run("send", "--message", "spring-voucher", "--group", "customers", "--id", sendout, "--wait", expect=INTERRUPTED)
    run("outbox", "--state", "interrupted")
    ok = _check("no mail was sent", not Ledger(services.ledger).mails())
    _say("Import 400 more codes and resume the sendout.")
    run("import", f"{DATA}/spring-codes-more.txt", "--list", "spring-10", "--wait")
    run("resume", sendout, "--wait")
    run("list", "ls")
    run("who", "--email", "anna.mueller@example.org")
    _say("Check the database's invariants and the mails in the sink.")
    run("verify")
    return _check_mails(Ledger(services.ledger).mails()) and ok


def _check_mails(mails: list[Mail]) -> bool:
    """Check that each mail has one code, the same in text and HTML, and that codes and recipients occur only once."""
    codes = [_codes(mail) for mail in mails]
    recipients = {mail.rcpt_to for mail in mails}
    different = set().union(*codes)
    each_has_one = all(len(of_mail) == 1 for of_mail in codes)
    return _check(
        f"{len(mails):,} mails, {len(different):,} different codes, {len(recipients):,} different recipients",
        each_has_one and len(mails) == len(recipients) == len(different) == CUSTOMERS,
    )


def _codes(mail: Mail) -> set[str]:
    bodies = [part.get_content() for part in mail.email.walk() if part.get_content_maintype() == "text"]
    return {code for body in bodies for code in CODE.findall(body)}


class _Runner:
    """Prints each command as a user would type it, and runs it. Without a terminal as stdin, no command asks."""

    def __init__(self, services: Services) -> None:
        self._environment = os.environ | services.environment()

    def __call__(self, *arguments: str, expect: int = DONE) -> None:
        shown = shlex.join(argument.replace(f"{DATA}/", f"{_relative(DATA)}/") for argument in arguments)
        click.secho(f"\n$ coupons {shown}", fg="cyan", bold=True)
        sys.stdout.flush()
        done = subprocess.run(  # noqa: S603 - ours
            [COUPONS, *arguments], env=self._environment, stdin=subprocess.DEVNULL, check=False
        )
        code = done.returncode
        if code != expect:
            raise ServiceError(f"`coupons {shown}` exited with code {code} instead of {expect}")


@contextmanager
def _worker(services: Services, log: Path) -> Iterator[None]:
    click.secho("\n$ coupons worker &", fg="cyan", bold=True)
    log.unlink(missing_ok=True)  # the log of an earlier demo contains the awaited line
    with running([COUPONS, "worker"], log=log, environment=services.environment()) as process:
        consuming: Callable[[], bool] = lambda: "consuming commands" in log.read_text(encoding="utf-8")  # noqa: E731
        wait_until(consuming, process, name="the worker", log=log, limit_seconds=WORKER_SECONDS)
        yield


def _keep(services: Services) -> None:
    _say("The services run until Ctrl-C. To use them from another terminal:")
    for name, value in services.environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo()


def _say(sentence: str) -> None:
    click.secho(f"\n# {sentence}", fg="yellow")


def _check(sentence: str, ok: bool) -> bool:
    click.secho(f"{mark(ok=ok)} {sentence}", bold=True)
    return ok


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
