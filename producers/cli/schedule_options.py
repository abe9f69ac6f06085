"""The options for start times and paces, which `coupons send` and `coupons reschedule` share."""

from datetime import datetime

import click

from producers.durations import describe_invalid_minutes, parse_minutes


class Timestamp(click.ParamType[datetime]):
    """A time in ISO 8601. Without an offset, it is in this machine's time zone, which must have it exactly once."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from producers.local_time import InvalidTime, local_zone, parse_time

        try:
            return parse_time(value, local_zone())
        except InvalidTime as error:
            self.fail(str(error), param, ctx)


class Minutes(click.ParamType[int]):
    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from coupons.commands import MAX_MINUTES

        minutes = parse_minutes(value)
        if minutes is None or minutes > MAX_MINUTES:
            self.fail(describe_invalid_minutes(value, MAX_MINUTES), param, ctx)
        return minutes


start_at_option = click.option(
    "--start-at", type=Timestamp(), metavar="TIME", help="Do not send before TIME, as 2030-03-01T09:00 (this machine's"
    " time zone) or with a zone, …+01:00 or …Z.")  # fmt: skip
per_hour_option = click.option(
    "--per-hour", type=click.IntRange(min=1), metavar="N", help="Max. mails per hour, spread evenly."
)
over_option = click.option(
    "--over", "over_minutes", type=Minutes(), metavar="DURATION", help="Spread the mails evenly over DURATION, as 90m,"
    " 4h, 1h30m or 2d.")  # fmt: skip
