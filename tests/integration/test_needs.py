"""A sendout reserves and assigns only the codes that its mails print."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from coupons.admission import Granted
from coupons.commands import Recipient, StartSendout
from coupons.database import Connection, Pool, open_pool
from coupons.smtp import Limits, Relays, SmtpAddress
from coupons.store import lists, messages, sendout_views, sendouts
from coupons.templates.rendering import Parts
from sandbox.services import private_sink
from tests.factories import SENDER, add_list, add_recipients, prepare, start
from tests.worker_harness import batch_sender, load_batch

TIER = '{% if tier == "gold" %}{{ coupon("gold") }}{% else %}{{ coupon("basic") }}{% endif %}'
BOTH = '{% if has_coupon("a") and has_coupon("b") %}{{ coupon("a") }} {{ coupon("b") }}{% else %}Sorry{% endif %}'


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=4) as pool:
        yield pool


async def save(connection: Connection, text: str, subject: str = "Hello") -> None:
    parts = Parts(subject=subject, text=text, html=None)
    await messages.save(connection, "m", parts, sender=SENDER, reply_to=None, declared=["tier"])


async def add_tiers(connection: Connection, tiers: Sequence[Mapping[str, str]]) -> None:
    """Create the group g of c0000@example.org, c0001@example.org, … with these attributes."""
    await add_recipients(connection, "g", [(f"c{n:04}@example.org", dict(each)) for n, each in enumerate(tiers)])


def tiers(gold: int, basic: int) -> list[dict[str, str]]:
    return [{"tier": "gold"}] * gold + [{"tier": "basic"}] * basic


async def needed(connection: Connection, sendout_id: UUID) -> dict[str, int]:
    return {each.name: each.needed for each in (await sendout_views.get(connection, sendout_id)).lists}


async def available(connection: Connection, *names: str) -> list[int]:
    return [each.available for each in await lists.get(connection, *names)]


async def send(connection: Connection, pool: Pool, folder: Path) -> dict[str, str]:
    """Send a batch; return the text of each recipient's mail."""
    batch, renderer, due = await load_batch(connection)
    with private_sink(folder / "mails.jsonl") as sink:
        async with Relays(SmtpAddress.parse_all(sink.url), limits=Limits(connections=1)) as relays:
            with batch_sender(pool, batch, renderer, relays, window=50) as sender:
                await sender.run(due)
        await sendouts.settle(connection, batch.sendout_id)
        return {mail.rcpt_to[0]: mail.text.strip() for mail in sink.mails()}


# --- needs -----------------------------------------------------------------------------------------------------------


async def test_a_sendout_needs_only_the_codes_that_its_mails_print(connection: Connection) -> None:
    """10 gold of 1,000 recipients need 10 codes of one list, the others 990 codes of another."""
    await add_list(connection, "gold", 10)
    await add_list(connection, "basic", 990)
    await add_tiers(connection, tiers(10, 990))
    await save(connection, TIER)
    sendout_id = await start(connection, "m", "g")
    assert isinstance(await prepare(connection), Granted)
    assert await needed(connection, sendout_id) == {"gold": 10, "basic": 990}
    assert await available(connection, "gold", "basic") == [0, 0]


async def test_given_recipients_need_only_the_codes_that_their_mails_print(connection: Connection) -> None:
    """The recipients of a command are evaluated as those of a group are."""
    await add_list(connection, "gold", 1)
    await add_list(connection, "basic", 2)
    await save(connection, TIER)
    recipients = [Recipient(email=f"c{n}@example.org", attributes=each) for n, each in enumerate(tiers(1, 2))]
    again = Recipient(email="C0@example.org", attributes={"tier": "basic"})
    command = StartSendout(id=uuid4(), message="m", recipients=(*recipients, again))
    async with connection.transaction():
        await sendouts.create(connection, command, batch_size=100)
    assert await needed(connection, command.id) == {"gold": 1, "basic": 2}
