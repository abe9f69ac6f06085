"""The mail sink's ledger: one JSON line per accepted mail, in order of acceptance."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mail:
    """An accepted mail: its envelope, and its bytes without dot-stuffing."""

    mail_from: str
    rcpt_to: tuple[str, ...]
    data: bytes

    @property
    def email(self) -> EmailMessage:
        return message_from_bytes(self.data, policy=policy.default)

    @property
    def text(self) -> str:
        r"""The plain text part, or else the HTML part, decoded, with \n as line end; "" if there is neither."""
        body = self.email.get_body(preferencelist=("plain", "html"))
        return "" if body is None else str(body.get_content()).replace("\r\n", "\n")


@dataclass(frozen=True, slots=True)
class Ledger:
    path: Path

    def mails(self) -> list[Mail]:
        """Return all mails so far. A line that is still being written is omitted."""
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        return [parse(line) for line in lines[:-1]]


def parse(line: bytes) -> Mail:
    entry = json.loads(line)
    return Mail(entry["mail_from"], tuple(entry["rcpt_to"]), entry["data"].encode("latin-1"))


def entry(mail_from: bytes, rcpt_to: list[bytes], data: bytes) -> bytes:
    """Return the line of a mail. Latin-1 maps every byte to one character, so any mail can be restored exactly."""
    fields = {
        "at": datetime.now(UTC).isoformat(),
        "mail_from": mail_from.decode("latin-1"),
        "rcpt_to": [address.decode("latin-1") for address in rcpt_to],
        "data": data.decode("latin-1"),
    }
    return json.dumps(fields).encode() + b"\n"
