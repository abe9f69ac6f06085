"""A group of commands that refuses an option that is given twice."""

from collections import Counter

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


def _check_repeated(command: click.Command, ctx: click.Context, args: list[str]) -> None:
    """Raise UsageError if an option with one value is given more than once."""
    try:
        *_, given = command.make_parser(ctx).parse_args(args=list(args))
    except click.UsageError:  # the command reports it
        return
    for parameter, times in Counter(given).items():
        if times > 1 and isinstance(parameter, click.Option) and not (parameter.multiple or parameter.is_flag):
            raise click.UsageError(f"{parameter.opts[0]} is given twice, but accepts one value", ctx)
