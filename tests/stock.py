"""A stocked shop, made through the store: lists with codes, groups, messages, sendouts. For tests and benchmarks."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from coupons.admission import Granted, Short
from coupons.codes import check
from coupons.commands import ImportCoupons, StartSendout
from coupons.database import Connection
from coupons.recipients import Recipient
from coupons.store import groups, imports, lists, messages, sendouts
from coupons.store.lists import Shortage
from coupons.templates import Parts

LEASE_SECONDS = 600
AT_ONCE = 50_000


async def add_list(connection: Connection, name: str, codes: int = 0, *, shortage: Shortage = "pause") -> None:
    """A list with so many codes: `NAME-000000000` and so on."""
    await lists.create(
        connection, name, description="", shortage=shortage, alternative_text="Sorry, none left.", preview_text=None
    )
    if codes:
        await add_codes(connection, name, [f"{name.upper()}-{number:09}" for number in range(codes)])


async def add_codes(connection: Connection, name: str, codes: Sequence[str]) -> UUID:
    """What an import worker does with a file of these lines; returns the import's id."""
    command = ImportCoupons(list=name, codes=("X",))
    await imports.create(connection, command)
    job = await imports.claim(connection, owner="stock", lease_seconds=LEASE_SECONDS)
    assert job
    for start in range(0, len(codes), AT_ONCE):
        chunk = codes[start : start + AT_ONCE]
        checked = check(range(start + 1, start + 1 + len(chunk)), chunk)
        await imports.apply(connection, job, checked, position=start + 1, lease_seconds=LEASE_SECONDS)
    await imports.finish(connection, job)
    return command.id


async def add_group(connection: Connection, name: str, recipients: int) -> None:
    """A group of c0@example.org and so on, each with a first name."""
    for start in range(0, recipients, AT_ONCE):
        rows = [
            (number, Recipient(f"c{number}@example.org", f"c{number}@example.org", {"first_name": f"Zoë {number}"}))
            for number in range(start, min(start + AT_ONCE, recipients))
        ]
        async with connection.transaction():
            await groups.add(connection, name, ["first_name"], rows)


async def save_message(connection: Connection, name: str, *of_lists: str, html: str | None = None) -> None:
    """A message that prints a code of each list."""
    codes = "".join(f'{{{{ coupon("{each}") }}}}\n' for each in of_lists)
    parts = Parts(
        subject="Your voucher, {{ first_name }}",
        text=f"Hello {{{{ first_name }}}},\n{codes}",
        html=html and f"{html}{codes}",
    )
    await messages.save(
        connection, name, parts, sender="Garden Shop <shop@example.org>", reply_to=None, declared=["first_name"]
    )


async def start(connection: Connection, message: str, group: str, *, batch_size: int = 1_000) -> UUID:
    """A sendout up to its snapshot; the next step is its admission."""
    command = StartSendout(id=uuid4(), message=message, group=group)
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=batch_size)
    return command.id


async def prepare(connection: Connection, *, batch_size: int = 1_000) -> Granted | Short:
    """What a sendout worker does with the oldest sendout that waits."""
    claim = await sendouts.claim(connection, owner="stock", lease_seconds=LEASE_SECONDS)
    assert claim
    if claim.recipients is None:
        await sendouts.snapshot(connection, claim, batch_size=batch_size)
    return await sendouts.admit(connection, claim)
