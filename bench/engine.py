"""Measures the SMTP engine alone: it renders mails from a compiled message and sends them, without a database.

`python -m bench.engine URL MAILS` sends MAILS mails to the relay at URL and prints the mails/s.
"""

import asyncio
import sys
import time

import uvloop

from bench.rig import CONNECTIONS, envelopes, run_program
from coupons.smtp import Limits, Outcome, Relays, Sent, SmtpAddress

MAX_IN_FLIGHT = 200  # a worker's default


async def engine(smtp_url: str, mails: int) -> float:
    """Mails/s of the engine, measured in a new process, as workers run in their own processes too."""
    return float(await run_program(sys.executable, "-m", "bench.engine", smtp_url, str(mails)))


async def mails_per_s(smtp_url: str, mails: int) -> float:
    """Mails/s. Like a worker, submits more mails whenever half of the mails in flight have an outcome."""
    write = envelopes()
    in_flight = 0
    room = asyncio.Event()

    def report(outcome: Outcome) -> None:
        nonlocal in_flight
        if not isinstance(outcome, Sent):
            raise TypeError(f"a mail was not sent: {outcome}")
        in_flight -= 1
        if in_flight <= MAX_IN_FLIGHT // 2:
            room.set()

    begun = time.perf_counter()
    async with Relays(SmtpAddress.parse_all(smtp_url), limits=Limits(connections=CONNECTIONS)) as relays:
        for number in range(mails):
            if in_flight >= MAX_IN_FLIGHT:
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
