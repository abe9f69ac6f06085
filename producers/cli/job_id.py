"""Ids of sendouts and imports as arguments: whole, or their first characters."""

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import click

from producers.cli.runtime import database, user_errors

if TYPE_CHECKING:
    from coupons.store.job_ids import Kind


class JobId(click.ParamType[UUID]):
    """The id of a sendout or an import of these kinds. Its first characters are enough, if no other id has them."""

    name = "id"

    def __init__(self, *kinds: "Kind") -> None:
        self._kinds = kinds

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        try:
            return UUID(value.strip())
        except ValueError:
            return self._find(value, param, ctx)

    def _find(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        from coupons.store.job_ids import MIN_CHARS, parse_prefix

        prefix = parse_prefix(value)
        if prefix is None:
            self.fail(
                f"{value!r} is not an id: give the whole id, or at least its first {MIN_CHARS} characters", param, ctx
            )
        with user_errors():
            return asyncio.run(_get(prefix, self._kinds))


async def _get(prefix: str, kinds: "tuple[Kind, ...]") -> UUID:
    from coupons.store import job_ids

    async with database() as connection:
        return await job_ids.get(connection, prefix, kinds)


imports_before = click.option("--before", type=JobId("import"), metavar="ID", help="Show only imports that are older"
                              " than import ID.")  # fmt: skip
