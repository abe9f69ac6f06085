"""What a test takes for granted, put there through the store: 0.1 s, and 1.5 s through the command line."""

from collections.abc import Iterable, Mapping, Sequence

from coupons.addresses import parse_address
from coupons.database import Connection, connected
from coupons.store import lists, messages
from coupons.templates import Parts
from tests.stock import add_codes, add_recipients

SENDER = "Garden Shop <shop@example.org>"


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
    """Lists with their codes, a group of Adas, and a message that says `text` in its text and in its HTML."""
    async with connected(database_url) as connection:
        for name in codes:
            await add_list(connection, name, codes[name], alternative_text)
        people = [(parse_address(address).address, {"first_name": "Ada"}) for address in addresses]
        async with connection.transaction():
            await add_recipients(connection, group, people)
        parts = Parts(subject="For {{ first_name }}", text=text, html=f"<p>{text}</p>")
        await messages.save(connection, message, parts, sender=SENDER, reply_to=None, declared=())


async def add_list(connection: Connection, name: str, codes: Sequence[str], alternative_text: str) -> None:
    await lists.create(
        connection,
        name,
        description="",
        shortage="text" if alternative_text else "pause",
        alternative_text=alternative_text,
        preview_text=None,
    )
    async with connection.transaction():  # no worker must find this import
        if codes:
            await add_codes(connection, name, codes)
