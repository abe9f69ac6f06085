"""The engine alone: mails written from a compiled message and handed to a relay, nothing recorded.

`python -m bench.engine URL MAILS` prints mails/s; a process of its own, as a worker is.
"""

import asyncio
import sys
import time

import uvloop

from bench.rig import CONNECTIONS, envelopes, succeed
from coupons.smtp import Limits, Outcome, Relays, Sent, SmtpAddress

IN_HAND = 200  # as a worker's window


async def engine(smtp_url: str, mails: int) -> float:
    """Mails/s, measured in a new process."""
    return float(await succeed(sys.executable, "-m", "bench.engine", smtp_url, str(mails)))


async def mails_per_s(smtp_url: str, mails: int) -> float:
    """Half of the window is written anew whenever half of it has an outcome, as a worker does."""
    write = envelopes()
    in_flight = 0
    room = asyncio.Event()

    def report(outcome: Outcome) -> None:
        nonlocal in_flight
        if not isinstance(outcome, Sent):
            raise TypeError(f"a mail was not sent: {outcome}")
        in_flight -= 1
        if in_flight <= IN_HAND // 2:
            room.set()

    begun = time.perf_counter()
    async with Relays(SmtpAddress.parse_all(smtp_url), limits=Limits(connections=CONNECTIONS)) as relays:
        for number in range(mails):
            if in_flight >= IN_HAND:
                room.clear()
                await room.wait()
            in_flight += 1
            relays.submit(write(number), report)
        while in_flight:
            room.clear()
            await room.wait()
        return mails / (time.perf_counter() - begun)


if __name__ == "__main__":
    print(uvloop.run(mails_per_s(sys.argv[1], int(sys.argv[2]))))
