"""The mail sink follows RFC 5321 and RFC 2920, regardless of how its input is split into packets."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sandbox.ledger import Ledger
from sandbox.mail_sink import SIZE_LIMIT_BYTES
from sandbox.services import Sink, private_sink

ENVELOPE = b"MAIL FROM:<shop@example.org>\r\nRCPT TO:<%s>\r\n"
MAIL = ENVELOPE + b"DATA\r\nSubject: %s\r\n\r\nYour code\r\n.\r\n"


class Client:
    """A connection after EHLO; the test decides what it sends and when it reads."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.replies = connection.makefile("rb")

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def codes(self, count: int) -> list[int]:
        return [int(self.reply()[:3]) for _ in range(count)]

    def reply(self) -> bytes:
        """The last line of the next reply; b"" when the connection has ended."""
        line = self.replies.readline()
        while line[3:4] == b"-":
            line = self.replies.readline()
        return line


@pytest.fixture
def client(sink: Sink) -> Iterator[Client]:
    with connected(sink) as client:
        client.send(b"EHLO client.example.org\r\n")
        assert client.codes(1) == [250]
        yield client


@contextmanager
def connected(sink: Sink) -> Iterator[Client]:
    address = urlsplit(sink.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        client = Client(connection)
        assert client.codes(1) == [220]
        yield client


def test_a_whole_session_may_come_in_one_write(client: Client, sink: Sink) -> None:
    """Commands, two mails and QUIT in one packet are answered one by one, in order (RFC 2920 3.2)."""
    client.send(MAIL % (b"ada@example.org", b"one") + MAIL % (b"bea@example.org", b"two") + b"QUIT\r\n")
    assert client.codes(9) == [250, 250, 354, 250, 250, 250, 354, 250, 221]
    assert client.reply() == b""
    assert [(mail.rcpt_to, mail.email["Subject"]) for mail in sink.mails()] == [
        (("ada@example.org",), "one"),
        (("bea@example.org",), "two"),
    ]


def test_a_session_may_come_byte_by_byte(client: Client, sink: Sink) -> None:
    """No command and no end of a mail is lost between two packets."""
    client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in MAIL % (b"ada@example.org", b"one"):
        client.send(bytes([byte]))
    assert client.codes(4) == [250, 250, 354, 250]
    assert [mail.data for mail in sink.mails()] == [b"Subject: one\r\n\r\nYour code\r\n"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"a\r\n..b\r\n...\r\nc.\r\n.\r\n", b"a\r\n.b\r\n..\r\nc.\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n"),
        (bytes(range(128, 256)) + b"\r\n.\r\n", bytes(range(128, 256)) + b"\r\n"),
    ],
)
def test_only_stuffed_dots_are_removed(client: Client, sink: Sink, sent: bytes, kept: bytes) -> None:
    """The ledger has the original bytes of the mail (RFC 5321 4.5.2), and only CRLF dot CRLF ends the mail."""
    client.send(ENVELOPE % b"ada@example.org" + b"DATA\r\n" + sent)
    assert client.codes(4) == [250, 250, 354, 250]
    assert [mail.data for mail in sink.mails()] == [kept]


@pytest.mark.parametrize(
    ("commands", "codes"),
    [
        (b"RCPT TO:<a@example.org>\r\n", [503]),
        (b"DATA\r\n", [503]),
        (b"MAIL FROM:<a@example.org>\r\nDATA\r\n", [250, 503]),
        (b"MAIL FROM:<a@example.org>\r\nMAIL FROM:<b@example.org>\r\n", [250, 503]),
        (b"MAIL FROM:<a@example.org>\r\nRSET\r\nMAIL FROM:<>\r\n", [250, 250, 250]),
        (b"MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME\r\n", [250]),
        (b"MAIL FROM:<a@example.org> SMTPUTF8\r\n", [501]),
        (b"MAIL FROM:a@example.org\r\n", [501]),
        (b"MAIL FROM:<a@example.org>\r\nRCPT TO:<>\r\n", [250, 501]),
        (b"noop\r\nXYZZY\r\n", [250, 500]),
    ],
)
def test_commands_out_of_order_are_rejected(client: Client, commands: bytes, codes: list[int]) -> None:
    """A client error gets an error reply."""
    client.send(commands)
    assert client.codes(len(codes)) == codes


def test_mail_before_hello_is_rejected(sink: Sink) -> None:
    """MAIL before EHLO or HELO is out of order; HELO is enough."""
    with connected(sink) as client:
        client.send(b"MAIL FROM:<a@example.org>\r\nHELO client\r\nMAIL FROM:<a@example.org>\r\n")
        assert client.codes(3) == [503, 250, 250]


def test_an_endless_line_ends_the_connection(client: Client) -> None:
    """A line without an end is rejected before it fills the memory."""
    client.send(b"N" * 3_000)
    assert client.codes(1) == [552]
    assert client.reply() == b""


def test_a_mail_above_the_offered_size_is_not_recorded(client: Client, sink: Sink) -> None:
    """EHLO offers SIZE; a larger mail gets 552, and the connection ends."""
    client.send(ENVELOPE % b"ada@example.org" + b"DATA\r\n" + SIZE_LIMIT_BYTES * b"x")
    assert client.codes(4) == [250, 250, 354, 552]
    assert sink.mails() == []


def test_refuse_is_refused_and_the_next_mail_is_accepted(client: Client, sink: Sink) -> None:
    """`refuse.…` gets 550 at RCPT; DATA without a recipient is out of order, and the next mail is accepted."""
    client.send(ENVELOPE % b"refuse.ada@example.org" + b"DATA\r\nRSET\r\n" + MAIL % (b"bea@example.org", b"two"))
    assert client.codes(8) == [250, 550, 503, 250, 250, 250, 354, 250]
    assert [mail.rcpt_to for mail in sink.mails()] == [("bea@example.org",)]


@pytest.mark.parametrize(("script", "code"), [(b"defer", 451), (b"refuseonce", 550)])
def test_some_addresses_are_accepted_the_second_time(client: Client, sink: Sink, script: bytes, code: int) -> None:
    """`defer.…` gets 451 at its first RCPT, even if other addresses were deferred before, and `refuseonce.…` 550."""
    for name in (b".ada@example.org", b".bea@example.org"):
        client.send(ENVELOPE % (script + name) + b"RSET\r\n")
        assert client.codes(3) == [250, code, 250]
    client.send(MAIL % (script + b".ada@example.org", b"one"))
    assert client.codes(4) == [250, 250, 354, 250]
    assert [mail.rcpt_to for mail in sink.mails()] == [(f"{script.decode()}.ada@example.org",)]


def test_badsender_is_refused_at_mail(client: Client) -> None:
    """`badsender.…` gets 550 5.7.1 at MAIL."""
    client.send(b"MAIL FROM:<badsender.shop@example.org>\r\n")
    assert client.reply().startswith(b"550 5.7.1")


def test_drop_records_the_mail_and_cuts_the_connection(client: Client, sink: Sink) -> None:
    """A mail to `drop.…` is in the ledger, but the connection ends without its reply; earlier commands are answered."""
    client.send(MAIL % (b"ada@example.org", b"one") + MAIL % (b"drop.bea@example.org", b"two"))
    assert client.codes(7) == [250, 250, 354, 250, 250, 250, 354]
    assert client.reply() == b""
    assert [mail.email["Subject"] for mail in sink.mails()] == ["one", "two"]


def test_fsync_does_not_change_the_ledger(tmp_path: Path) -> None:
    """Every mail is in the ledger with --fsync too."""
    with private_sink(tmp_path / "mails.jsonl", "--fsync") as sink, connected(sink) as client:
        client.send(b"EHLO client\r\n" + MAIL % (b"ada@example.org", b"one"))
        assert client.codes(5) == [250, 250, 250, 354, 250]
        assert [mail.text for mail in sink.mails()] == ["Your code\n"]


def test_an_incomplete_line_is_not_a_mail(tmp_path: Path) -> None:
    """A reader of the ledger of a running sink sees only complete mails."""
    path = tmp_path / "mails.jsonl"
    path.write_bytes(b'{"at":"","mail_from":"a@x","rcpt_to":["b@x"],"data":""}\n{"at":"20')
    assert [mail.mail_from for mail in Ledger(path).mails()] == ["a@x"]


@pytest.mark.parametrize("ending", [subprocess.Popen.terminate, subprocess.Popen.kill])
def test_discard_leaves_a_count_and_sigterm_exits_with_0(
    tmp_path: Path, ending: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    """The count is written when the last connection ends, so even SIGKILL loses no count. SIGTERM exits with code 0."""
    ledger = tmp_path / "count.json"
    command = [sys.executable, "-m", "sandbox.mail_sink", "--ledger", str(ledger), "--discard"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        url = f"smtp://127.0.0.1:{process.stdout.readline().decode().strip()}"
        with connected(Sink(url, ledger)) as client:
            client.send(b"EHLO client\r\n" + 3 * (MAIL % (b"ada@example.org", b"one")) + b"QUIT\r\n")
            assert client.codes(14)[-1] == 221
            assert client.reply() == b""
        ending(process)
        code = process.wait(timeout=10)
    assert code == (0 if ending is subprocess.Popen.terminate else -9)
    assert ledger.read_text() == '{"count": 3}\n'
