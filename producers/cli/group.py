"""Groups of commands. They refuse an option that is given twice."""

from collections import Counter
from typing import Any

import click


class Group(click.Group):
    """A group whose commands accept an option twice only if it is repeatable.

    click uses the last value and drops the others: `coupons send --group a --group b` would mail only the group b.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            _check_repeated(command, command.context_class(command, parent=ctx, info_name=name), rest)
        return name, command, rest


class DefaultGroup(Group):
    """A group that runs its default command unless the first argument is the name of another command.

    `coupons import undo ID` is a command of the group; `coupons import FILE` and `coupons import ./undo` are not.
    """

    def __init__(self, default: click.Command) -> None:
        super().__init__(default.name, help=default.help)
        self._default = default

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add the command, and list it in the help of the default command."""
        super().add_command(cmd, name)
        rows = (
            f"  coupons {self.name} {each.name}\n      {each.get_short_help_str(70)}" for each in self.commands.values()
        )
        self._default.epilog = "\b\nOther commands:\n" + "\n".join(rows)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        if not extra.get("resilient_parsing"):
            context = self._default.context_class(self._default, parent=parent, info_name=info_name)
            _check_repeated(self._default, context, args)
        return self._default.make_context(info_name, args, parent, **extra)


def _check_repeated(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    """Raise UsageError if an option with one value is given more than once."""
    try:
        *_, given = command.make_parser(ctx).parse_args(args=list(args))
    except click.UsageError:  # the command reports it
        return
    for parameter, times in Counter(given).items():
        if times > 1 and isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag):
            raise click.UsageError(f"{parameter.opts[0]} is given twice, but accepts one value", ctx)
