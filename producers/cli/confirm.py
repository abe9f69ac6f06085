"""The question before a command changes something, with the numbers of what it will change.

Only a terminal is asked. A script has no terminal on stdin, so it runs on as before; `--yes` skips the question.
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
