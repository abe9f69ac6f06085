"""A mail server that delivers nothing and records every mail: `python -m sandbox.mail_sink --ledger PATH`.

When the server listens, it prints its port on one line. A mail is in the ledger before the client reads the reply
"250", so the ledger is the source of truth about sent mails. On SIGTERM the server exits with code 0.

As real relays do, the server puts the address into its refusals, its deferrals and its reply to RCPT.
"""

import argparse
import asyncio
import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from zlib import crc32

from sandbox.ledger import entry

SIZE_LIMIT_BYTES = 10_485_760
LINE_LIMIT_BYTES = 2_048  # RFC 5321 4.5.3.1.4 requires 512; the parameters of extensions need more

READ_BYTES = 65_536

LINE_END = b"\r\n"
MAIL_END = b"\r\n.\r\n"
FROM = re.compile(rb"FROM:<([^<>\s]*)>(?: SIZE=\d+| BODY=7BIT| BODY=8BITMIME)*", re.IGNORECASE)
TO = re.compile(rb'TO:<([^<>"\s]+|"(?:[^"\\\r\n]|\\.)*"@[^<>\s]+)>', re.IGNORECASE)

GREETING = b"220 sink.localhost ESMTP\r\n"
HELLO = b"250 sink.localhost\r\n"
EXTENSIONS = b"250-sink.localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE %d\r\n" % SIZE_LIMIT_BYTES
OK = b"250 2.0.0 OK\r\n"
RECIPIENT_OK = b"250 2.1.5 <%s> OK\r\n"
GO_AHEAD = b"354 end with a dot on a line of its own\r\n"
BYE = b"221 2.0.0 bye\r\n"
UNKNOWN = b"500 5.5.1 unknown command\r\n"
BAD_ARGUMENT = b"501 5.5.4 bad address or parameter\r\n"
BAD_SEQUENCE = b"503 5.5.1 bad sequence of commands\r\n"
TOO_LONG = b"552 5.3.4 too long\r\n"


@dataclass(frozen=True, slots=True)
class Script:
    """What the server replies instead of "250". `at` is the step: MAIL, RCPT, or DOT (the end of a mail).

    The address is added to the reply, after its two codes.
    """

    at: str
    reply: bytes | None  # None cuts the connection
    first_only: bool = False  # applies only when the address is used for the first time
    keep: bool = False  # at DOT: the mail is recorded although it gets no 250


# The script applies to addresses that begin with this word and a dot.
SCRIPTS = {
    b"badsender": Script("MAIL", b"550 5.7.1 sender refused\r\n"),
    b"refuse": Script("RCPT", b"550 5.1.1 no such mailbox\r\n"),
    b"refuseonce": Script("RCPT", b"550 5.1.1 no such mailbox\r\n", first_only=True),
    b"defer": Script("RCPT", b"451 4.7.1 try again later\r\n", first_only=True),
    b"drop": Script("DOT", None, keep=True),
    b"droponce": Script("DOT", None, keep=True, first_only=True),
}

GREYLISTED = Script("RCPT", b"450 4.2.0 greylisted\r\n", first_only=True)


class Recorder:
    """Shared by all sessions: the ledger, and the addresses used so far.

    All mails of one turn of the event loop are written together and then answered: writing and flushing mail by mail is
    slower, and with `fsync` much slower.
    """

    def __init__(self, ledger: Path, *, fsync: bool, discard: bool, delay: float, greylist: int = 0) -> None:
        self.ledger = ledger.open("wb" if discard else "ab")
        self.fsync, self.discard, self.delay, self.greylist = fsync, discard, delay, greylist
        self.recorded = 0
        self.lines: list[bytes] = []
        self.awaiting_reply: list[Session] = []
        self.sessions: set[Session] = set()
        self.seen: set[bytes] = set()

    def script(self, at: str, address: bytes) -> Script | None:
        greylisted = GREYLISTED if crc32(address) % 100 < self.greylist else None
        script = SCRIPTS.get(address.partition(b".")[0].lower(), greylisted)
        if script is None or script.at != at or (script.first_only and address in self.seen):
            return None
        self.seen.add(address)
        return script

    def record(self, mail_from: bytes, rcpt_to: list[bytes], stuffed: bytes) -> None:
        """Record a mail. `stuffed` has its bytes as sent (RFC 5321 4.5.2), after the line end of the DATA command."""
        self.recorded += 1
        if not self.discard:
            data = stuffed.replace(b"\r\n.", b"\r\n")[len(LINE_END) :]
            self.lines.append(entry(mail_from, rcpt_to, data))

    def schedule_reply(self, session: "Session") -> None:
        if not self.awaiting_reply:
            asyncio.get_running_loop().call_later(self.delay, self.flush)
        self.awaiting_reply.append(session)

    def flush(self) -> None:
        if self.lines:
            self.ledger.write(b"".join(self.lines))
            self.ledger.flush()
            self.lines = []
            if self.fsync:
                os.fsync(self.ledger.fileno())
        sessions, self.awaiting_reply = self.awaiting_reply, []
        for session in sessions:
            session.reply()

    def write_count(self) -> None:
        if self.discard:
            self.ledger.seek(0)
            self.ledger.truncate()
            self.ledger.write(json.dumps({"count": self.recorded}).encode() + b"\n")
            self.ledger.flush()


class Session(asyncio.BufferedProtocol):
    """One connection. Each command or mail is processed as soon as it is complete.

    With a plain Protocol, asyncio allocates 256 kB for every read, which takes 15 µs: 15,000 mails/s instead of 25,000.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.buffer = bytearray(READ_BYTES)
        self.rest = b""
        self.replies = [GREETING]
        self.greeted = self.receiving = self.ended = False
        self.reset()

    def reset(self) -> None:
        self.mail_from: bytes | None = None
        self.rcpt_to: list[bytes] = []
        self.ending: Script | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.recorder.sessions.add(self)
        self.reply()

    def connection_lost(self, _: Exception | None) -> None:
        self.recorder.sessions.discard(self)
        if not self.recorder.sessions:
            self.recorder.write_count()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        read, at = self.rest + self.buffer[:nbytes], 0
        while not self.ended and (end := read.find(MAIL_END if self.receiving else LINE_END, at)) >= 0:
            at = self.process(read, at, end)
        self.rest = read[at:]
        if not self.ended and len(self.rest) > (SIZE_LIMIT_BYTES if self.receiving else LINE_LIMIT_BYTES):
            self.replies.append(TOO_LONG)
            self.ended = True
        self.recorder.schedule_reply(self)

    def process(self, read: bytes, at: int, end: int) -> int:
        """Process the mail or command between `at` and `end`; return where the next one begins.

        The bytes of a mail begin with the line end of its DATA command, which in an empty mail is also the line end
        before the dot.
        """
        if self.receiving:
            self.replies.append(self.end_of_mail(read[at : end + len(LINE_END)]))
            return end + len(MAIL_END)
        verb, _, argument = read[at:end].partition(b" ")
        reply = self.command(verb.upper(), argument)
        self.replies.append(reply)
        return end if reply is GO_AHEAD else end + len(LINE_END)

    def command(self, verb: bytes, argument: bytes) -> bytes:
        reply = OK
        match verb:
            case b"MAIL":
                reply = self.mail(argument)
            case b"RCPT":
                reply = self.rcpt(argument)
            case b"DATA":
                reply = self.data()
            case b"EHLO" | b"HELO":
                self.greeted = True
                self.reset()
                reply = EXTENSIONS if verb == b"EHLO" else HELLO
            case b"RSET":
                self.reset()
            case b"NOOP":
                pass
            case b"QUIT":
                self.ended = True
                reply = BYE
            case _:
                reply = UNKNOWN
        return reply

    def mail(self, argument: bytes) -> bytes:
        if not self.greeted or self.mail_from is not None:
            return BAD_SEQUENCE
        if not (sender := FROM.fullmatch(argument)):
            return BAD_ARGUMENT
        if script := self.recorder.script("MAIL", sender[1]):
            return self.apply(script, sender[1])
        self.mail_from = sender[1]
        return OK

    def rcpt(self, argument: bytes) -> bytes:
        if self.mail_from is None:
            return BAD_SEQUENCE
        if not (recipient := TO.fullmatch(argument)):
            return BAD_ARGUMENT
        if script := self.recorder.script("RCPT", recipient[1]):
            return self.apply(script, recipient[1])
        self.rcpt_to.append(recipient[1])
        self.ending = self.recorder.script("DOT", recipient[1]) or self.ending
        return RECIPIENT_OK % recipient[1]

    def data(self) -> bytes:
        if not self.rcpt_to:
            return BAD_SEQUENCE
        self.receiving = True
        return GO_AHEAD

    def end_of_mail(self, stuffed: bytes) -> bytes:
        mail_from, rcpt_to, ending = self.mail_from or b"", self.rcpt_to, self.ending
        self.receiving = False
        self.reset()
        if ending is None or ending.keep:
            self.recorder.record(mail_from, rcpt_to, stuffed)
        return OK if ending is None else self.apply(ending, rcpt_to[0])

    def apply(self, script: Script, address: bytes) -> bytes:
        if not script.reply:
            self.ended = self.ended or script.reply is None
            return b""
        code, enhanced_code, text = script.reply.split(b" ", 2)
        return b"%s %s <%s>: %s" % (code, enhanced_code, address, text)

    def reply(self) -> None:
        self.transport.write(b"".join(self.replies))
        self.replies.clear()
        if self.ended:
            self.transport.close()


async def serve(port: int, ledger: Path, *, fsync: bool, discard: bool, delay: float, greylist: int) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    recorder = Recorder(ledger, fsync=fsync, discard=discard, delay=delay, greylist=greylist)
    server = await loop.create_server(lambda: Session(recorder), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by the process that started this one
    await stopped.wait()
    server.close()
    recorder.flush()
    recorder.write_count()


def main() -> None:
    parser = argparse.ArgumentParser(description="A mail server that delivers nothing and records every mail.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 for a free one")
    parser.add_argument("--ledger", type=Path, required=True, help="file that gets a JSON line per mail")
    parser.add_argument("--fsync", action="store_true", help="fsync the ledger before every reply")
    parser.add_argument("--discard", action="store_true", help='record only {"count": n}, for benchmarks')
    parser.add_argument("--delay", type=float, default=0, help="seconds before each reply")
    parser.add_argument("--greylist", type=int, default=0, help="percentage of addresses that are deferred at first")
    asyncio.run(serve(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
