"""The main story, told on real services with the real command line, and checked in the mail sink's own ledger."""

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
    """Tell it; False if what was mailed is not what the system promises. Raises ServiceError."""
    click.secho("Real PostgreSQL, RabbitMQ and a mail sink start privately on free ports …", dim=True)
    with ExitStack() as stack:
        services = stack.enter_context(private_services(folder, say=lambda line: click.secho(line, dim=True)))
        run = _Runner(services)
        run("migrate")
        stack.enter_context(_worker(services, folder.absolute() / "worker.log"))
        good = _tell(run, services)
        if keep:
            _keep(services)
    return good


def _tell(run: "_Runner", services: Services) -> bool:
    sendout = str(uuid4())
    _say("A list with 600 codes, a group of 1,000 customers, a message.")
    run("list", "create", "spring-10", "--description", "10 % off everything")
    run("import", f"{DATA}/spring-codes.txt", "--list", "spring-10", "--wait")
    run("group", "import", f"{DATA}/customers.csv", "--group", "customers", "--wait", expect=REJECTED_LINES)
    run(
        "message", "save", "spring-voucher", "--subject", "{{ first_name }}, your spring voucher",
        "--text", f"{DATA}/message.txt", "--html", f"{DATA}/message.html", "--from", "Garden Shop <shop@example.org>",
    )  # fmt: skip
    _say("600 codes for 1,000 customers: the sendout is interrupted, and nobody is mailed.")
    run("send", "--message", "spring-voucher", "--group", "customers", "--id", sendout, "--wait", expect=INTERRUPTED)
    run("outbox", "--state", "interrupted")
    good = _check("nobody was mailed", not Ledger(services.ledger).mails())
    _say("400 more codes, and the sendout is resumed.")
    run("import", f"{DATA}/spring-codes-more.txt", "--list", "spring-10", "--wait")
    run("resume", sendout, "--wait")
    run("list", "ls")
    run("who", "--email", "anna.mueller@example.org")
    _say("What the database says of itself, and what the mail sink really got.")
    run("verify")
    return _check_mails(Ledger(services.ledger).mails()) and good


def _check_mails(mails: list[Mail]) -> bool:
    """Each mail has one code, in text and HTML alike; no code and no recipient twice."""
    codes = [_codes(mail) for mail in mails]
    recipients = {mail.rcpt_to for mail in mails}
    different = set().union(*codes)
    each_has_one = all(len(of_mail) == 1 for of_mail in codes)
    return _check(
        f"{len(mails):,} mails, {len(different):,} different codes, {len(recipients):,} recipients, nobody twice",
        each_has_one and len(mails) == len(recipients) == len(different) == CUSTOMERS,
    )


def _codes(mail: Mail) -> set[str]:
    bodies = [part.get_content() for part in mail.email.walk() if part.get_content_maintype() == "text"]
    return {code for body in bodies for code in CODE.findall(body)}


class _Runner:
    """Shows each command as a reader would type it, and runs it."""

    def __init__(self, services: Services) -> None:
        self._environment = os.environ | services.environment()

    def __call__(self, *arguments: str, expect: int = DONE) -> None:
        shown = shlex.join(argument.replace(f"{DATA}/", f"{_relative(DATA)}/") for argument in arguments)
        click.secho(f"\n$ coupons {shown}", fg="cyan", bold=True)
        sys.stdout.flush()
        code = subprocess.run([COUPONS, *arguments], env=self._environment, check=False).returncode  # noqa: S603 - ours
        if code != expect:
            raise ServiceError(f"`coupons {shown}` ended with {code}, not {expect}")


@contextmanager
def _worker(services: Services, log: Path) -> Iterator[None]:
    click.secho("\n$ coupons worker &", fg="cyan", bold=True)
    log.unlink(missing_ok=True)  # an earlier demo's worker said the same
    with running([COUPONS, "worker"], log=log, environment=services.environment()) as process:
        taking: Callable[[], bool] = lambda: "consuming commands" in log.read_text(encoding="utf-8")  # noqa: E731
        wait_until(taking, process, name="The worker", log=log, limit_seconds=WORKER_SECONDS)
        yield


def _keep(services: Services) -> None:
    _say("The services go on until Ctrl-C. In another terminal:")
    for name, value in services.environment().items():
        click.echo(f"export {name}={shlex.quote(value)}")
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo()


def _say(sentence: str) -> None:
    click.secho(f"\n# {sentence}", fg="yellow")


def _check(sentence: str, holds: bool) -> bool:
    mark = click.style("✓", fg="green") if holds else click.style("✗", fg="red")
    click.secho(f"{mark} {sentence}", bold=True)
    return holds


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
