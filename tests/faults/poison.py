"""Bodies that are not valid commands, each with the reason. Most contain an address or code, which no log may show."""

import gzip
import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

CODE, ADDRESS = "POISON-0000001", "poison@example.org"
LIST = "poisoned"
RECIPIENTS = [{"email": ADDRESS, "attributes": {"first_name": "Ada"}}]
MIB = 1_048_576


@dataclass(frozen=True, slots=True)
class Poison:
    """A body to publish with routing key `key`. It is rejected with a reason that contains `reason`."""

    name: str
    key: str
    body: bytes
    reason: str


def import_(**changes: Any) -> dict[str, Any]:
    return {"type": "import", "id": str(uuid4()), "list": LIST, "codes": [CODE], **changes}


def sendout(**changes: Any) -> dict[str, Any]:
    return {"type": "sendout", "id": str(uuid4()), "message": LIST, "recipients": RECIPIENTS, **changes}


def resume(**changes: Any) -> dict[str, Any]:
    return {"type": "resume", "id": str(uuid4()), "sendout": str(uuid4()), "note": ADDRESS, **changes}


def text(of: dict[str, Any]) -> str:
    return json.dumps(of)


def without(of: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in of.items() if key != name}


def twice(of: dict[str, Any], name: str, other: str) -> bytes:
    """A JSON object in which one key occurs twice with different values. Parsers disagree on which value counts."""
    return text(of).replace(f'"{name}":', f'"{name}": {other}, "{name}":', 1).encode()


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \r\n\t ",
    "text": f"send {CODE} to {ADDRESS}".encode(),
    "xml": f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "{CODE}">]><a>&b;</a>'.encode(),
    "cut off": text(import_())[:-1].encode(),
    "two in one": text(import_()).encode() * 2,
    "a trailing NUL": text(import_()).encode() + b"\0",
    "binary": bytes(range(256)) + CODE.encode(),
    "compressed": gzip.compress(text(import_()).encode()),
    "a bomb": gzip.compress(bytes(100 * MIB)),
    "latin-1": text(import_()).encode().replace(b"POISON", b"P\xd6ISON"),
    "utf-16": text(import_()).encode("utf-16"),
    "utf-32": text(import_()).encode("utf-32-be"),
    "half a pair in utf-8": text(import_()).encode().replace(b"POISON", b"\xed\xa0\x80"),
    "a single quote": text(import_()).replace('"', "'").encode(),
    "not a number": text(sendout(per_hour=float("nan"))).encode(),
    "infinity": text(sendout(per_hour=float("-inf"))).encode(),
    "a number of 5,000 digits": text(sendout(per_hour=0))
    .replace('"per_hour": 0', f'"per_hour": {"9" * 5_000}')
    .encode(),
    "deep": b'{"type":"import","codes":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
AMBIGUOUS = {
    "two lists": twice(import_(), "list", f'"{CODE}"'),
    "two ids": twice(import_(), "id", f'"{uuid4()}"'),
    "two types": twice(import_(), "type", '"resume"'),
    "two addresses": twice(sendout(), "email", '"eve@example.org"'),
}  # fmt: skip
WRONG: list[tuple[str, dict[str, Any] | list[Any] | str | int | None, str]] = [
    ("a list", [import_()], "not a JSON object"),
    ("a string", CODE, "not a JSON object"),
    ("a number", 5, "not a JSON object"),
    ("null", None, "not a JSON object"),
    ("no type", without(import_(), "type"), "type: must be one of"),
    ("no id", without(import_(), "id"), "id: required"),
    ("no list", without(import_(), "list"), "exactly one of list and group is required"),
    ("no codes", without(import_(), "codes"), "exactly one of codes and source is required"),
    ("no message", without(sendout(), "message"), "message: required"),
    ("no recipients", sendout(recipients=[]), "recipients: "),
    ("an unknown type", import_(type=f"{CODE}"), "type: must be one of"),
    ("a type of another case", import_(type="Import"), "type: must be one of"),
    ("a type that is a list", import_(type=["import"]), "type: must be one of"),
    ("an unknown field", import_(**{CODE: 1}), "…: unknown field"),
    ("a field of the future", import_(expires_at="2030-01-01T00:00:00Z", version=2), "expires_at: unknown field"),
    ("a mode of the future", import_(mode="merge"), "mode: "),
    ("a nested field of the future", import_(format={"kind": "txt", "quote": "'"}), "format.quote: unknown field"),
    ("an invalid id", import_(id=CODE), "id: "),
    ("an id that is a number", import_(id=5), "id: "),
    ("codes that are text", import_(codes=CODE), "codes: "),
    ("codes that are numbers", import_(codes=[5, 6]), "codes.1: "),
    ("codes in codes", import_(codes=[[CODE]]), "codes.0: "),
    ("half a pair", import_(codes=["\ud800" + CODE]), "codes.0: is not valid Unicode"),
    ("half a pair as a name", import_(**{"\ud800": CODE}), "valid Unicode string"),
    ("half a pair as a list", import_(list="\udfff"), "list: "),
    ("a NUL in a list", import_(list="a\0b"), "list: "),
    ("a NUL in an attribute", sendout(recipients=[{"email": ADDRESS, "attributes": {"a": "\0"}}]), "attributes.a: "),
    ("an unknown scheme", without(import_(source="gopher://" + ADDRESS), "codes"), "source: must begin with"),
    ("1,001 codes", import_(codes=[CODE] * 1_001), "codes: "),
    ("a header in an address", sendout(recipients=[{"email": f"{ADDRESS}\nBcc: e@example.org"}]), "recipients.0.email"),
    ("an absurd rate", sendout(per_hour=10**400), "per_hour: "),
    ("a start before year 1", sendout(start_at="0001-01-01T00:00:00+14:00"), "start_at: "),
    ("a start after year 9999", sendout(start_at="9999-12-31T23:59:59-14:00"), "start_at: "),
    ("a start without a zone", sendout(start_at="2030-01-01T00:00:00"), "start_at: "),
    ("an unknown list", import_(list="nowhere"), "there is no list nowhere"),
    ("an unknown sendout", without(resume(), "note"), "there is no sendout"),
]
HUGE = {
    "a mebibyte of errors": import_(codes=[0] * 340_000),
    "a mebibyte of invalid recipients": sendout(recipients=[{}] * 250_000),
    "a mebibyte of unknown fields": import_(**{f"{number:x}": 1 for number in range(70_000)}),
}


def all_() -> list[Poison]:
    return [
        *(Poison(name, "import", body, "not valid UTF-8 JSON") for name, body in NOT_JSON.items()),
        *(Poison(name, "import", body, "duplicate field") for name, body in AMBIGUOUS.items()),
        *(Poison(name, _key(content), json.dumps(content).encode(), reason) for name, content, reason in WRONG),
        *(Poison(name, _key(content), json.dumps(content).encode(), ": ") for name, content in HUGE.items()),
        Poison("more than a mebibyte", "import", text(import_(codes=["X" * MIB])).encode(), "exceed the limit"),
    ]


def _key(content: object) -> str:
    type_ = content.get("type") if isinstance(content, dict) else None
    return type_ if type_ in ("import", "sendout", "resume") else "import"
