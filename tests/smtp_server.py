r"""An SMTP server that follows a script: it gives any reply after any delay, also a wrong one, and can die at any step.

In the test's process: `async with serving({"RCPT": "550 5.1.1 no\r\n"}) as server`. As a separate process,
which prints its port and can be killed:

    python -m tests.smtp_server --ledger FILE --script '{"DOT": {"reply": "250 ok\r\n", "then": "cut"}}' ...

Each connection has its own script. The last script is used for all later connections. A script maps a verb to an act.
The verbs are GREETING, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, BODY (ten octets into a mail), DOT, RSET, QUIT, and IDLE
(after the reply to the dot). Each occurrence of a verb takes the next act of its list; the last act is used for all
later occurrences. An accepted mail is in the ledger, fsynced, before the reply is sent.

As real relays do, the server adds the address to its reply to RCPT and to each 4xx and 5xx reply, so that every test
with this server notices an address in a text that must not contain one.
"""

import argparse
import asyncio
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

# A self-signed certificate for "localhost", valid until 2120, and its key, which is used only in tests.
KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSsSydKqKd6/iSHBy
cFVPOa6DT8cac8As7S8/RxKCl4+hRANCAAS23+48DGVyDAJwxbV9WfNk3yihQK/w
J4oAym/SGNtaVHulDKY06DLEJAtTg3m7t4dR45Npv9q5k+YiQQC37sZh
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBYTCCAQegAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLbf7jwMZXIMAnDF
tX1Z82TfKKFAr/AnigDKb9IY21pUe6UMpjToMsQkC1ODebu3h1Hjk2m/2rmT5iJB
ALfuxmGjSDBGMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAPBgNVHRMBAf8EBTADAQH/
MB0GA1UdDgQWBBTlgJgd0XrrYI5Kdt2nc4oVIUJsAjAKBggqhkjOPQQDAgNIADBF
AiEAvBYiGoi2RL3vxZqanzi9HxODhPoCQGlOFtte/wGocqgCIBViIEis7i6/Utv5
GQk5mIfC5Aunf2HAwfph+3kWkfKR
-----END CERTIFICATE-----
"""


@dataclass(frozen=True, slots=True)
class Act:
    """The answer to a verb: a delay in seconds, then the reply, then optionally the end of the connection."""

    reply: str = ""
    delay: float = 0
    bytewise: bool = False
    then: str = ""
    """`cut` resets the connection. With `hang`, no more bytes are sent or interpreted."""
    discard: bool = False
    """Whether commands received together with this one are discarded, as if PIPELINING were not offered."""
    accept: bool | None = None
    """Whether the server really accepts the command or mail; None means: as the reply says."""
    only_for: str = ""
    """The act applies to addresses that contain this text. For others, the server does what a friendly one does."""

    @property
    def accepts(self) -> bool:
        return self.reply.startswith(("2", "3")) if self.accept is None else self.accept


CUT = Act(then="cut")
HANG = Act(then="hang")

Script = Mapping[str, "str | Act | list[str | Act]"]

EHLO = "250-relay.example\r\n250-DSN\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"
PIPELINING = {"EHLO": "250-relay.example\r\n250-PIPELINING\r\n250 DSN\r\n"}
FRIENDLY: Script = {
    "GREETING": "220 relay.example ready\r\n",
    "EHLO": EHLO,
    "STARTTLS": "220 2.0.0 go\r\n",
    "AUTH": "235 2.7.0 welcome\r\n",
    "MAIL": "250 2.1.0 ok\r\n",
    "RCPT": "250 2.1.5 ok\r\n",
    "DATA": "354 go ahead\r\n",
    "DOT": "250 2.0.0 queued\r\n",
    "RSET": "250 2.0.0 ok\r\n",
    "QUIT": "221 2.0.0 bye\r\n",
    "BODY": "",
    "IDLE": "",
}


ROOT = Path(__file__).parents[1]


class CutError(Exception):
    """The script makes the server die here."""


@dataclass
class ScriptedServer:
    scripts: tuple[Script, ...]
    tls: ssl.SSLContext | None = None
    ledger: Path | None = None
    port: int = 0
    commands: list[list[str]] = field(default_factory=list)
    """The command lines of each connection."""
    mails: list[bytes] = field(default_factory=list)
    """The bytes after 354, including the final dot."""
    accepted: list[str] = field(default_factory=list)
    """The recipients of the mails that were really accepted."""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    sessions: set["Session"] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """The number of connections so far."""
        return len(self.commands)

    @property
    def verbs(self) -> list[list[str]]:
        """The commands of each connection, without arguments."""
        return [[line.partition(" ")[0] for line in lines] for lines in self.commands]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = {**FRIENDLY, **self.scripts[min(len(self.commands), len(self.scripts) - 1)]}
        session = Session(self, script, reader, writer)
        self.commands.append(session.commands)
        self.sessions.add(session)
        try:
            await session.run()
        except CutError:
            writer.transport.abort()
        except (ConnectionError, ssl.SSLError, EOFError):
            pass
        finally:
            self.sessions.discard(session)
            writer.close()

    def accept(self, recipient: str, mail: bytes) -> None:
        self.accepted.append(recipient)
        if self.ledger is not None:
            with self.ledger.open("a") as file:
                print(json.dumps({"to": recipient, "mail": mail.decode("latin-1")}), file=file, flush=True)
                os.fsync(file.fileno())


@dataclass(eq=False)
class Session:
    server: ScriptedServer
    script: Mapping[str, "str | Act | list[str | Act]"]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    commands: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    read: bytes = b""
    recipient: str | None = None
    address: str = ""
    """The address in the last command that has one."""

    async def run(self) -> None:
        await self.act_on("GREETING")
        while line := (await self.read_until(b"\n")).decode("latin-1").rstrip("\r\n"):
            self.commands.append(line)
            verb, _, argument = line.partition(" ")
            if verb in ("MAIL", "RCPT"):
                self.address = argument.partition("<")[2].partition(">")[0]
            act = await self.act_on(verb)
            if verb == "STARTTLS" and self.server.tls is not None:
                await self.writer.start_tls(self.server.tls)
            elif verb == "RCPT" and act.accepts:
                self.recipient = argument
            elif verb in ("MAIL", "RSET"):
                self.recipient = None
            elif verb == "DATA" and act.accepts and "354" in act.reply:
                await self.receive_mail()
            if verb == "QUIT" or act.reply.startswith("421"):
                return

    async def receive_mail(self) -> None:
        while self.script["BODY"] and len(self.read) < 10:
            await self.read_more()
        await self.act_on("BODY")
        mail = await self.read_mail()
        self.server.mails.append(mail)
        act = self.next_act("DOT")
        if act.accepts and self.recipient is not None:
            self.server.accept(self.recipient, mail)
        self.recipient = None
        await self.perform(act)
        await self.act_on("IDLE")

    async def read_mail(self) -> bytes:
        while len(self.read) < len(b".\r\n"):
            await self.read_more()
        return await self.read_until(b"\n" if self.read.startswith(b".\r\n") else b"\r\n.\r\n")

    async def read_until(self, end: bytes) -> bytes:
        while end not in self.read:
            await self.read_more()
        found, end, self.read = self.read.partition(end)
        return found + end

    async def read_more(self) -> None:
        data = await self.reader.read(65_536)
        if not data:
            raise EOFError
        self.read += data

    async def act_on(self, verb: str) -> Act:
        act = self.next_act(verb)
        await self.perform(act)
        return act

    def next_act(self, verb: str) -> Act:
        act = self.script.get(verb, "500 5.5.1 what?\r\n")
        if isinstance(act, list):
            act = act[min(self.seen[verb], len(act) - 1)]
        self.seen[verb] += 1
        act = Act(act) if isinstance(act, str) else act
        if act.only_for not in self.address:
            act = Act(str(FRIENDLY[verb]))
        return (
            replace(act, reply=echoing(act.reply, self.address))
            if verb == "RCPT" or act.reply.startswith(("4", "5"))
            else act
        )

    async def perform(self, act: Act) -> None:
        if act.delay:
            await asyncio.sleep(act.delay)
        if act.discard:
            await asyncio.sleep(0.02)  # let the commands arrive that are discarded
            with suppress(TimeoutError):
                await asyncio.wait_for(self.read_more(), 0.02)
            self.read = b""
        size = 1 if act.bytewise else len(act.reply) or 1
        for start in range(0, len(act.reply), size):
            self.writer.write(act.reply[start : start + size].encode("latin-1"))
            await self.writer.drain()
            await asyncio.sleep(0)
        if act.then == "hang":
            self.server.hanging.set()
            while await self.reader.read(65_536):
                pass
        if act.then:
            raise CutError


def echoing(reply: str, address: str) -> str:
    """Return the reply with the address at its end: `550 5.1.1 no <ada@example.org>`."""
    is_whole = reply[:3].isdecimal() and reply.endswith("\r\n")
    return reply.removesuffix("\r\n") + f" <{address}>\r\n" if is_whole and address else reply


@asynccontextmanager
async def serving(
    *scripts: Script, tls: ssl.SSLContext | None = None, implicit: bool = False, ledger: Path | None = None
) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer(scripts or ({},), tls, ledger)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=tls if implicit else None)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()


@contextmanager
def process(ledger: Path, script: Script) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Yield a server in a separate process, and its port."""
    script_json = json.dumps(script, default=asdict)
    command = [sys.executable, "-m", "tests.smtp_server", "--ledger", str(ledger), "--script", script_json]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        try:
            yield running, int(running.stdout.readline())
        finally:
            running.kill()


def server_tls() -> ssl.SSLContext:
    """Return a TLS context for `localhost`. Only clients that have a copy of its certificate trust it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(KEY_AND_CERTIFICATE)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def parse_script(text: str) -> Script:
    def act(value: object) -> str | Act | list[str | Act]:
        if isinstance(value, list):
            return [each for one in value if not isinstance(each := act(one), list)]
        return Act(**value) if isinstance(value, dict) else str(value)

    return {verb: act(value) for verb, value in json.loads(text).items()}


async def run(arguments: argparse.Namespace) -> None:
    tls = server_tls() if arguments.tls else None
    scripts = [parse_script(each) for each in arguments.script]
    async with serving(*scripts, tls=tls, implicit=arguments.tls == "implicit", ledger=arguments.ledger) as server:
        print(server.port, flush=True)  # noqa: T201 - read by the process that started this one
        await asyncio.to_thread(sys.stdin.read)  # until the process that started this one ends


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted SMTP server")
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--script", action="append", default=[])
    parser.add_argument("--tls", choices=("starttls", "implicit"))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
