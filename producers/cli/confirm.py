"""The question before a command changes something, with the numbers of what it will change.

Only a terminal is asked. A script has no terminal on stdin, so it runs on as before; `--yes` skips the question. Only a
deletion, which cannot be undone, needs a terminal or `--yes`.
"""

import sys
from collections.abc import Iterable

import click

yes_option = click.option("--yes", is_flag=True, help="Skip confirmation.")


def is_asked(*, yes: bool) -> bool:
    """Whether an operator at a terminal is to be asked."""
    return not yes and sys.stdin.isatty()


def confirm(question: str, facts: Iterable[str] = ()) -> None:
    """Print the facts and the question on stderr. Any answer but yes raises click.Abort, which exits with code 1."""
    for line in facts:
        click.echo(line, err=True)
    click.confirm(question, abort=True, err=True)


def confirm_deletion(question: str, *, yes: bool) -> None:
    """Ask unless `yes`. Raises click.UsageError if no terminal can be asked, and click.Abort."""
    if yes:
        return
    require_terminal()
    confirm(question)


def require_terminal() -> None:
    """Raise click.UsageError if no question can be asked."""
    if not sys.stdin.isatty():
        raise click.UsageError("stdin is not a terminal: pass --yes")


def require_free_stdin(file: object) -> None:
    """Raise click.UsageError if the answer of an operator at a terminal would be read from the file."""
    if file is sys.stdin.buffer and sys.stderr.isatty():
        raise click.UsageError("no question can be asked, because FILE is stdin: pass --yes")
