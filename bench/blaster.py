"""Measures the limit of the sink itself, with a client that only writes pipelined mails."""

import asyncio
import time
from urllib.parse import urlsplit

CONNECTIONS = 10
IN_FLIGHT = 50
_MAIL = (
    b"MAIL FROM:<shop@example.org>\r\nRCPT TO:<customer@example.org>\r\nDATA\r\n"
    b"Subject: Your voucher\r\n\r\n" + b"the days are getting longer, and there is a lot to plant.\r\n" * 34 + b".\r\n"
)
_REPLIES = 4


async def mails_per_s(url: str, *, mails: int) -> float:
    """Send mails of 2 kB over several connections; return the mails/s."""
    address = urlsplit(url)
    begun = time.perf_counter()
    await asyncio.gather(
        *(_connection(address.hostname or "", address.port or 25, mails // CONNECTIONS) for _ in range(CONNECTIONS))
    )
    return mails / (time.perf_counter() - begun)


async def _connection(host: str, port: int, mails: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    await reader.readline()
    writer.write(b"EHLO bench\r\n")
    while not (await reader.readline()).startswith(b"250 "):
        pass
    for _ in range(0, mails, IN_FLIGHT):
        writer.write(_MAIL * IN_FLIGHT)
        for _ in range(_REPLIES * IN_FLIGHT):
            reply = await reader.readline()
            if reply[:1] not in (b"2", b"3"):
                raise ConnectionError(f"the sink answered {reply!r}")
    writer.close()
