"""The mail sink of the demo with random faults: `python -m tests.faults.sink --ledger PATH --odds '{"DOT": 0.01}'`.

The ledger is fsynced before every reply, so it is correct even if a process dies. `--odds` maps faults to their
probabilities. The faults:

MAIL, RCPT, DATA    the connection is closed instead of a reply to this command
BODY                the connection is closed in the middle of a mail
DOT                 the connection is closed after the final dot, and the mail is not recorded
QUEUED              the connection is closed after the final dot, and the mail is recorded
BUSY                the reply to MAIL is 421
DEFER, REFUSE       the reply to RCPT is 451 or 550
SENDER, QUOTA       the reply to RCPT is 550 with a code that is about the sender or about the quota
LATER               the reply to the final dot is 451
MESSAGE             the reply to the final dot is 554
LATE                the replies are sent `--late` seconds later

The queue id in the final reply is derived from the recipient, so a test can check that the reply belongs to the mail.

The same seed causes the same faults for the same order of mails. The sink logs each fault as a line of a file next to
the ledger, whose name ends in `.faults`.
"""

import argparse
import asyncio
import json
import random
import signal
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

from sandbox.mail_sink import GO_AHEAD, OK, Recorder, Script, Session

FAULTS = {
    "MAIL": Script("MAIL", None),
    "BUSY": Script("MAIL", b"421 4.3.2 busy, try again later\r\n"),
    "RCPT": Script("RCPT", None),
    "DEFER": Script("RCPT", b"451 4.7.1 try again later\r\n"),
    "REFUSE": Script("RCPT", b"550 5.1.1 no such mailbox\r\n"),
    "SENDER": Script("RCPT", b"550 5.1.8 bad sender\r\n"),
    "QUOTA": Script("RCPT", b"550 5.4.5 daily limit\r\n"),
    "DATA": Script("DATA", None),
    "BODY": Script("BODY", None),
    "DOT": Script("DOT", None),
    "LATER": Script("DOT", b"451 4.3.0 try again later\r\n"),
    "MESSAGE": Script("DOT", b"554 5.7.26 unauthenticated\r\n"),
    "QUEUED": Script("DOT", None, keep=True),
    "LATE": Script("ANSWER", b""),
}


FAULT_LOG = ".faults"


class FaultyRecorder(Recorder):
    def __init__(self, ledger: Path, *, odds: Mapping[str, float], seed: int, delay: float, late: float) -> None:
        super().__init__(ledger, fsync=True, discard=False, delay=delay)
        self.late = late
        self._odds = odds
        self._random = random.Random(seed)
        self._fault_log = ledger.with_suffix(FAULT_LOG).open("a")

    def script(self, at: str, address: bytes) -> Script | None:
        """Draw a fault for this command. The fault for a mail's final dot is drawn in `end_of_mail` instead."""
        return (self.draw_fault(at) if at != "DOT" else None) or super().script(at, address)

    def draw_fault(self, at: str) -> Script | None:
        for name, share in self._odds.items():
            if FAULTS[name].at == at and self._random.random() < share:
                print(name, file=self._fault_log, flush=True)
                return FAULTS[name]
        return None


class FaultySession(Session):
    recorder: FaultyRecorder

    def data(self) -> bytes:
        if script := self.recorder.draw_fault("DATA"):
            return self.apply(script, self.rcpt_to[0] if self.rcpt_to else b"")  # RCPT may have been refused
        reply = super().data()
        if reply is GO_AHEAD and (script := self.recorder.draw_fault("BODY")):
            self.ending = script
        return reply

    def end_of_mail(self, stuffed: bytes) -> bytes:
        queued = queued_as(self.rcpt_to[0].decode()).encode()
        self.ending = self.ending or self.recorder.draw_fault("DOT")
        reply = super().end_of_mail(stuffed)
        return b"250 2.0.0 queued as %s\r\n" % queued if reply is OK else reply

    def reply(self) -> None:
        if self.replies and self.recorder.draw_fault("ANSWER"):
            asyncio.get_running_loop().call_later(self.recorder.late, super().reply)
        else:
            super().reply()

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self.receiving and self.ending and self.ending.at == "BODY":
            self.ended = True


def queued_as(address: str) -> str:
    return f"{crc32(address.encode()):08x}"


async def serve(port: int, recorder: FaultyRecorder) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(lambda: FaultySession(recorder), "127.0.0.1", port, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by the process that started this one
    await stopped.wait()
    server.close()
    recorder.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="A mail server that delivers nothing, records every mail, and has random faults."
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 for a free one")
    parser.add_argument("--ledger", type=Path, required=True, help="file that gets a JSON line per mail")
    parser.add_argument("--odds", type=json.loads, default={}, help="probability of each fault, as a JSON object")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0, help="seconds before each reply")
    parser.add_argument("--late", type=float, default=1, help="additional seconds before a LATE reply")
    options = parser.parse_args()
    recorder = FaultyRecorder(
        options.ledger, odds=options.odds, seed=options.seed, delay=options.delay, late=options.late
    )
    asyncio.run(serve(options.port, recorder))


if __name__ == "__main__":
    main()
