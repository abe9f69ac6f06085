"""The mail sink of the demo, misbehaving by chance: `python -m tests.faults.sink --ledger PATH --odds '{"DOT": 0.01}'`.

Its ledger is brought to the disk before every answer, so that its word holds whatever dies. The odds of each thing:

MAIL, RCPT, DATA    the connection is cut instead of the answer
BODY                it is cut in the middle of a mail
DOT                 it is cut after the final dot, and the mail is not kept
QUEUED              it is cut after the final dot, and the mail is kept
BUSY                421 to MAIL
DEFER, REFUSE       451 and 550 to RCPT
LATER               451 to the final dot
LATE                whatever is to be answered is answered `late` seconds later

What it has queued it calls by a number of the recipient's, so that a reply tells whose it is.

The same seed brings the same misfortunes for the same order of mails. Each that came is a line of the file beside the
ledger whose name ends in `.misfortunes`.
"""

import argparse
import asyncio
import json
import random
import signal
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from sandbox.mail_sink import GO_AHEAD, OK, Keeper, Script, Session

MISFORTUNES = {
    "MAIL": Script("MAIL", None),
    "BUSY": Script("MAIL", b"421 4.3.2 busy, come again\r\n"),
    "RCPT": Script("RCPT", None),
    "DEFER": Script("RCPT", b"451 4.7.1 try again later\r\n"),
    "REFUSE": Script("RCPT", b"550 5.1.1 no such mailbox\r\n"),
    "DATA": Script("DATA", None),
    "BODY": Script("BODY", None),
    "DOT": Script("DOT", None),
    "LATER": Script("DOT", b"451 4.3.0 try again later\r\n"),
    "QUEUED": Script("DOT", None, keep=True),
    "LATE": Script("ANSWER", b""),
}


DIARY = ".misfortunes"


class Misbehaving(Keeper):
    def __init__(self, ledger: Path, *, odds: Mapping[str, float], seed: int, delay: float, late: float) -> None:
        super().__init__(ledger, fsync=True, discard=False, delay=delay)
        self.late = late
        self._odds = odds
        self._random = random.Random(seed)
        self._diary = ledger.with_suffix(DIARY).open("a")

    def script(self, at: str, address: bytes) -> Script | None:
        """What becomes of a mail at its dot is not decided before."""
        return (self.misfortune(at) if at != "DOT" else None) or super().script(at, address)

    def misfortune(self, at: str) -> Script | None:
        for name, share in self._odds.items():
            if MISFORTUNES[name].at == at and self._random.random() < share:
                print(name, file=self._diary, flush=True)
                return MISFORTUNES[name]
        return None


class Unlucky(Session):
    keeper: Misbehaving

    def data(self) -> bytes:
        if script := self.keeper.misfortune("DATA"):
            return self.follow(script)
        reply = super().data()
        if reply is GO_AHEAD and (script := self.keeper.misfortune("BODY")):
            self.ending = script
        return reply

    def end_of_mail(self, stuffed: bytes) -> bytes:
        queued = queued_as(self.rcpt_to[0].decode()).encode()
        self.ending = self.ending or self.keeper.misfortune("DOT")
        reply = super().end_of_mail(stuffed)
        return b"250 2.0.0 queued as %s\r\n" % queued if reply is OK else reply

    def answer(self) -> None:
        if self.replies and self.keeper.misfortune("ANSWER"):
            asyncio.get_running_loop().call_later(self.keeper.late, super().answer)
        else:
            super().answer()

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self.receiving and self.ending and self.ending.at == "BODY":
            self.ended = True


def queued_as(address: str) -> str:
    return f"{crc32(address.encode()):08x}"


async def serve(port: int, keeper: Misbehaving) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(lambda: Unlucky(keeper), "127.0.0.1", port, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - whoever started us reads it
    await stopped.wait()
    server.close()
    keeper.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="A mail server that delivers nothing, keeps everything, and misbehaves."
    )
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1; 0 chooses a free one")
    parser.add_argument("--ledger", type=Path, required=True, help="the file that gets a JSON line for every mail")
    parser.add_argument("--odds", type=json.loads, default={}, help="of each misfortune, as a JSON object")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0, help="a slow server: seconds before it answers")
    parser.add_argument("--late", type=float, default=1, help="seconds by which what is LATE is late")
    options = parser.parse_args()
    keeper = Misbehaving(options.ledger, odds=options.odds, seed=options.seed, delay=options.delay, late=options.late)
    asyncio.run(serve(options.port, keeper))


if __name__ == "__main__":
    main()
