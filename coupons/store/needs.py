"""The snapshot of a sendout's recipients, with the lists that each delivery needs.

A mail needs a list if it prints the list's coupon. If conditions on attributes decide this, they are evaluated for each
recipient by the engine that renders the mails. A recipient whose condition cannot be evaluated needs no list; their
mail is refused with this reason when it is rendered.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from coupons.addresses import parse_address
from coupons.commands import Recipient
from coupons.database import Connection, affected
from coupons.errors import Conflict
from coupons.store import messages
from coupons.store.messages import Message
from coupons.store.queries import Queries
from coupons.templates.rendering import RenderError, Template, TemplateError

SQL = Queries("needs.sql")
AT_ONCE = 5_000
"""Recipients that are evaluated at once, in some 10 ms."""
MAX_KNOWN = 50_000
"""Combinations of values whose needs are kept in memory. Others are evaluated again if they occur again."""

MAX_SETS = 1 << 16  # the number of a set has two bytes


async def snapshot_group(
    connection: Connection, sendout_id: UUID, message: Message, group_id: int | None, *, seconds: float
) -> int:
    """Copy the group's recipients into deliveries and store how many need each list; return the number of recipients.

    Must run in a transaction. `seconds` limits each statement. Raises Conflict if the message cannot be compiled.
    """
    template = _compile(message)
    if not template.deciding_attributes:
        status = await connection.execute(SQL.snapshot_group, sendout_id, group_id, timeout=seconds)
        await connection.execute(SQL.need_all, sendout_id, affected(status))
        return affected(status)
    await connection.execute(SQL.create_audience)
    copied = affected(await connection.execute(SQL.copy_audience, group_id, timeout=seconds))
    needs = _Needs(template, await _list_ids(connection, sendout_id))
    numbers = await _evaluate_audience(connection, needs, copied)
    await connection.execute(SQL.snapshot_audience, sendout_id, numbers, needs.sets, timeout=seconds)
    await connection.execute(SQL.count_needs, sendout_id, timeout=seconds)
    return copied


async def snapshot_given(
    connection: Connection, sendout_id: UUID, message: Message, recipients: Sequence[Recipient]
) -> int:
    """Like `snapshot_group` for the recipients of a command. A repeated address is ignored."""
    template = _compile(message)
    addresses = [parse_address(each.email) for each in recipients]
    lists: list[str | None] = [None] * len(recipients)
    if template.deciding_attributes:
        needs = _Needs(template, await _list_ids(connection, sendout_id))
        values = [{**each.attributes, "email": to.address} for each, to in zip(recipients, addresses, strict=True)]
        lists = [needs.sets[needs.number([each.get(name) for name in needs.attributes])] for each in values]
    status = await connection.execute(
        SQL.snapshot_given,
        sendout_id,
        [each.key for each in addresses],
        [each.address for each in addresses],
        [json.dumps(each.attributes) for each in recipients],
        lists,
    )
    if template.deciding_attributes:
        await connection.execute(SQL.count_needs, sendout_id)
    else:
        await connection.execute(SQL.need_all, sendout_id, affected(status))
    return affected(status)


async def lists_by_address(
    connection: Connection, sendout_id: UUID
) -> Callable[[Mapping[str, str], str], frozenset[str]]:
    """Return a function that computes the lists that a mail of this sendout needs from its attributes and address."""
    template = _compile(await messages.get_for_sendout(connection, sendout_id))
    if "email" not in template.deciding_attributes:
        return lambda _, __: frozenset()
    return lambda attributes, address: _find(template, {**attributes, "email": address})


def _find(template: Template, attributes: Mapping[str, str]) -> frozenset[str]:
    try:
        return template.lists_for(attributes)
    except RenderError:
        return frozenset()


def _compile(message: Message) -> Template:
    try:
        return Template(message.parts)
    except TemplateError as error:
        raise Conflict(f"message {message.name}: {error}") from error


async def _list_ids(connection: Connection, sendout_id: UUID) -> dict[str, int]:
    return {row["name"]: row["id"] for row in await connection.fetch(SQL.list_ids, sendout_id)}


class _Needs:
    """The needs of recipients: each different set of lists gets a number, its index in `sets`."""

    def __init__(self, template: Template, list_ids: dict[str, int]) -> None:
        self.attributes = template.deciding_attributes
        self.sets: list[str] = []
        """Each set as the text of an array of list ids."""
        self._template = template
        self._list_ids = list_ids
        self._numbers: dict[frozenset[str], int] = {}
        self._known: dict[tuple[str | None, ...], int] = {}

    def number(self, values: Collection[str | None]) -> int:
        """The number of the set that a recipient needs whose deciding attributes have these values (None: missing)."""
        key = tuple(values)
        number = self._known.get(key)
        if number is None:
            given = {name: value for name, value in zip(self.attributes, key, strict=True) if value is not None}
            number = self._number_of(_find(self._template, given))
            if len(self._known) < MAX_KNOWN:
                self._known[key] = number
        return number

    def _number_of(self, lists: frozenset[str]) -> int:
        if lists not in self._numbers:
            if len(self.sets) == MAX_SETS:
                raise Conflict(f"its recipients need more than {MAX_SETS} different sets of lists")
            self._numbers[lists] = len(self.sets)
            self.sets.append(f"{{{','.join(str(self._list_ids[name]) for name in sorted(lists))}}}")
        return self._numbers[lists]


async def _evaluate_audience(connection: Connection, needs: _Needs, recipients: int) -> bytes:
    """Evaluate the audience, a part at a time; return two bytes per recipient: the number of the set that it needs."""
    numbers = bytearray(2 * recipients)
    cursor = await connection.cursor(SQL.deciding_values, needs.attributes)
    while rows := await cursor.fetch(AT_ONCE):
        for position, values in rows:
            number = needs.number(values)
            numbers[2 * position - 2] = number >> 8
            numbers[2 * position - 1] = number & 0xFF
    return bytes(numbers)
