"""Create lists with codes, groups, messages and sendouts through the store, for tests and benchmarks."""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID, uuid4

from coupons.addresses import parse_address
from coupons.admission import Granted, Short
from coupons.commands import Format, ImportCoupons, StartSendout
from coupons.database import Connection, connect
from coupons.files.codes import CheckedCodes, check_codes
from coupons.files.recipient_reader import CheckedRecipients
from coupons.states import Shortage
from coupons.store import groups, import_chunks, imports, lists, messages, sendouts
from coupons.store.import_chunks import Chunk
from coupons.store.imports import LeasedImport, Position
from coupons.templates.rendering import Parts

SENDER = "Garden Shop <shop@example.org>"

LEASE_SECONDS = 600
AT_ONCE = 50_000


async def add_list(
    connection: Connection,
    name: str,
    codes: int | Sequence[str] = 0,
    *,
    shortage: Shortage = Shortage.PAUSE,
    alternative_text: str = "Sorry, none left.",
    case_sensitive: bool = False,
    declared: Sequence[str] = (),
) -> None:
    """Create a list with these codes. A number n creates the n codes `NAME-000000000`, `NAME-000000001`, …"""
    await lists.create(
        connection, name, description="", shortage=shortage, alternative_text=alternative_text, preview_text=None,
        case_sensitive=case_sensitive, declared=declared,
    )  # fmt: skip
    if isinstance(codes, int):
        codes = [f"{name.upper()}-{number:09}" for number in range(codes)]
    if codes:
        await add_codes(connection, name, codes)


async def add_codes(connection: Connection, name: str, codes: Sequence[str]) -> UUID:
    """Import a file with these codes, as a worker does; return the import's id."""
    command = ImportCoupons(list=name, codes=("X",))
    await imports.create(connection, command)
    job = await claimed(connection, command.id)
    for start in range(0, len(codes), AT_ONCE):
        chunk = codes[start : start + AT_ONCE]
        await take_codes(
            connection, job, check_codes(range(start + 1, start + 1 + len(chunk)), chunk), position=start + 1
        )
    await imports.finish(connection, job)
    return command.id


async def add_group(connection: Connection, name: str, recipients: int) -> None:
    """Create a group of c0@example.org, c1@example.org, …, each with a first name."""
    await add_recipients(
        connection, name, [(f"c{number}@example.org", {"first_name": f"Zoë {number}"}) for number in range(recipients)]
    )


async def add_recipients(connection: Connection, group: str, recipients: Sequence[tuple[str, dict[str, str]]]) -> UUID:
    """Import a file with these addresses and attributes, as a worker does; return the import's id."""
    command = ImportCoupons(group=group, source="file:stock.csv", format=Format(kind="csv"))
    await imports.create(connection, command)
    job = await claimed(connection, command.id)
    await groups.extend(connection, job.target.id, sorted({name for _, each in recipients for name in each}))
    for start in range(0, len(recipients), AT_ONCE):
        addresses = [address for address, _ in recipients[start : start + AT_ONCE]]
        attributes = [json.dumps(each) for _, each in recipients[start : start + AT_ONCE]]
        lines = range(start + 1, start + 1 + len(addresses))
        await import_chunks.prepare_staging(connection)
        await import_chunks.stage_recipients(
            connection, CheckedRecipients(lines, list(map(str.lower, addresses)), addresses, attributes, [], 0)
        )
        await take(connection, job, lines=len(lines), position=start + 1)
    await imports.finish(connection, job)
    return job.id


async def claimed(connection: Connection, import_id: UUID) -> LeasedImport:
    """Claim the import under a long lease."""
    job = await imports.claim(connection, owner="stock", lease_seconds=LEASE_SECONDS, import_id=import_id)
    assert job
    return job


async def take_codes(connection: Connection, job: LeasedImport, checked: CheckedCodes, *, position: int) -> None:
    """Import one chunk of checked lines, which end at byte `position` of the source. Raises LeaseLost."""
    await import_chunks.prepare_staging(connection)
    await import_chunks.stage_codes(connection, checked, case_sensitive=job.target.case_sensitive)
    await take(connection, job, lines=len(checked.lines), blank=checked.blank, position=position)


async def take(connection: Connection, job: LeasedImport, *, lines: int, position: int, blank: int = 0) -> None:
    done = Position(position, bytes(32), position)
    chunk = Chunk(lines, blank, digest=secrets.token_bytes(32))
    try:
        await import_chunks.import_chunk(connection, job, chunk, position=done, lease_seconds=LEASE_SECONDS)
    finally:
        await import_chunks.discard_staging(connection)


async def save_message(connection: Connection, name: str, *of_lists: str, html: str | None = None) -> None:
    """Save a message that prints a code of each list."""
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
    """Create a sendout. `prepare` then takes its snapshot and reserves its codes."""
    command = StartSendout(id=uuid4(), message=message, group=group)
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=batch_size)
    return command.id


async def prepare(connection: Connection, *, batch_size: int = 1_000) -> Granted | Short:
    """Prepare the oldest queued sendout, as a worker does."""
    claim = await sendouts.claim(connection, owner="stock", lease_seconds=LEASE_SECONDS)
    assert claim
    if claim.recipients is None:
        await sendouts.take_snapshot(connection, claim, batch_size=batch_size)
    return await sendouts.admit(connection, claim)


async def add_samples(connection: Connection, sendout_id: UUID) -> None:
    """Store samples as if the sendout had 20 outcomes in the last 40 s, one in two seconds."""
    await connection.execute(
        f"""
        UPDATE sendout SET started_at = now() - interval '1 minute' WHERE id = '{sendout_id}';
        UPDATE delivery_batch
        SET outcomes = CASE number WHEN 1 THEN 20 ELSE 0 END, first_outcomes = CASE number WHEN 1 THEN 20 ELSE 0 END
        WHERE sendout_id = '{sendout_id}';
        INSERT INTO sendout_speed
        SELECT '{sendout_id}', array_agg(now() - make_interval(secs => n) ORDER BY n DESC),
               array_agg(20 - n / 2 ORDER BY n DESC), array_agg(20 - n / 2 ORDER BY n DESC)
        FROM generate_series(2, 40, 2) n;
        """
    )


async def resume(connection: Connection, sendout_id: UUID) -> Granted | Short | None:
    """Carry out a resume command, as a worker does."""
    async with connection.transaction():
        return await sendouts.resume(connection, sendout_id)


async def stock(
    database_url: str,
    *,
    message: str,
    text: str,
    group: str,
    addresses: Iterable[str],
    codes: Mapping[str, Sequence[str]],
    alternative_text: str,
) -> None:
    """Create lists with codes, a group whose recipients are all named Ada, and a message that prints `text`.

    Takes 0.1 s; the same through the command line takes 1.5 s.
    """
    shortage = Shortage.TEXT if alternative_text else Shortage.PAUSE
    async with connect(database_url) as connection:
        for name in codes:
            async with connection.transaction():  # hidden until the import is finished, so that no worker claims it
                await add_list(connection, name, codes[name], shortage=shortage, alternative_text=alternative_text)
        people = [(parse_address(address).address, {"first_name": "Ada"}) for address in addresses]
        async with connection.transaction():
            await add_recipients(connection, group, people)
        parts = Parts(subject="For {{ first_name }}", text=text, html=f"<p>{text}</p>")
        await messages.save(connection, message, parts, sender=SENDER, reply_to=None, declared=())
