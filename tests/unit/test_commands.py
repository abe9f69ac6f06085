"""The contract accepts valid commands, and rejects other commands with reasons."""

import hashlib
import json
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.commands import (
    MAX_COMMAND_BYTES,
    Command,
    ImportCoupons,
    InvalidCommand,
    Recipient,
    ResumeSendout,
    StartSendout,
    decode,
)

ID = "0190a7c0-0000-7000-8000-000000000001"


def reasons_for(content: object) -> list[str]:
    with pytest.raises(InvalidCommand) as caught:
        decode(json.dumps(content).encode())
    return caught.value.reasons


def test_each_command_of_the_contract_is_read() -> None:
    """The examples of the contract become typed, frozen commands."""
    imported = decode(
        b'{"type":"import","id":"%s","list":" Spring-10 ","mode":"add","codes":["A1","B2"]}' % ID.encode()
    )
    assert isinstance(imported, ImportCoupons)
    assert (imported.id, imported.list, imported.codes) == (UUID(ID), "spring-10", ("A1", "B2"))
    sendout = decode(
        b'{"type":"sendout","id":"%s","message":"m","recipients":'
        b'[{"email":"a@example.org","attributes":{"first_name":"Ada"}}]}' % ID.encode()
    )
    assert isinstance(sendout, StartSendout)
    assert sendout.recipients == (Recipient(email="a@example.org", attributes={"first_name": "Ada"}),)
    resume = decode(b'{"type":"resume","id":"%s","sendout":"%s"}' % (ID.encode(), ID.encode()))
    assert isinstance(resume, ResumeSendout)


@given(st.sampled_from(["add", "replace", "delete"]), st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_command_survives_its_own_body(mode: Literal["add", "replace", "delete"], codes: list[str]) -> None:
    """Decoding the body of a command gives the same command, for any codes."""
    command = ImportCoupons(list="spring-10", mode=mode, codes=tuple(codes))
    assert decode(command.body()) == command


def test_all_errors_are_reported_at_once() -> None:
    """An error reports all reasons at once, so that a publisher can fix a command in one step."""
    reasons = reasons_for({"type": "import", "list": "a/b", "mode": "append", "codes": [], "colour": "red"})
    assert [reason.partition(":")[0] for reason in reasons] == ["id", "list", "mode", "codes", "colour"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"type": "explode", "id": ID}, "type"),
        ({"id": ID}, "type"),
        (["import"], "not a JSON object"),
        ({"type": "resume", "sendout": ID}, "id: required"),
        ({"type": "resume", "id": "7", "sendout": ID}, "id"),
        ({"type": "import", "id": ID, "list": "a"}, "exactly one of codes and source is required"),
        ({"type": "import", "id": ID, "list": "a", "codes": ["x"], "source": "file:///x"}, "exactly one of codes and"),
        ({"type": "import", "id": ID, "list": "a", "source": "ftp://x/y"}, "must begin with one of"),
        (
            {"type": "import", "id": ID, "list": "a", "source": "https://user:hidden@x/y"},
            "source: must not contain a user or password",
        ),
        (
            {"type": "import", "id": ID, "list": "a", "source": "s3://key:hidden@x/y"},
            "source: must not contain a user or password",
        ),
        ({"type": "import", "id": ID, "list": "a", "codes": ["x"] * 1001}, "codes"),
        ({"type": "import", "id": ID, "list": "a", "source": "file:///a", "format": {"encoding": "y"}}, "encoding"),
        ({"type": "sendout", "id": ID, "message": "m"}, "exactly one of group and recipients is required"),
        ({"type": "sendout", "id": ID, "message": "m", "recipients": [{"email": "a@b.de\nBcc: x"}]}, "0.email"),
        (
            {
                "type": "sendout", "id": ID, "message": "m",
                "recipients": [{"email": "a@b.de", "attributes": {"if": ""}}],
            },
            "recipients.0.attributes.if",
        ),
    ],
)  # fmt: skip
def test_an_invalid_command_has_a_reason(content: object, reason: str) -> None:
    """The reason mentions the field or the rule."""
    assert any(reason in each for each in reasons_for(content))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": 5}, "id: must be a UUID"),
        ({"id": "x"}, "id: must be a UUID"),
        ({"message": 7}, "message: must be a valid Unicode string"),
        ({"colour": "red"}, "colour: unknown field"),
        ({"recipients": []}, "recipients: must not be empty"),
        ({"recipients": {"a": 1}}, "recipients: must be an array"),
        ({"recipients": [7]}, "recipients.0: must be an object"),
        ({"recipients": [{}]}, "recipients.0.email: required"),
        ({"recipients": [{"email": "a@b.de", "attributes": []}]}, "recipients.0.attributes: must be an object"),
        (
            {"recipients": [{"email": "a@b.de", "attributes": {"a": "x" * 1001}}]},
            "attributes.a: exceeds the limit of 1000 characters",
        ),
        ({"per_hour": 0}, "per_hour: must be at least 1"),
        ({"per_hour": 1.5}, "per_hour: must be an integer"),
        ({"over_minutes": 10**9}, "over_minutes: must be at most 44640"),
        ({"auto_resume": "maybe"}, "auto_resume: must be true or false"),
        ({"start_at": "tomorrow"}, "start_at: must be a date and time with a time zone (RFC 3339)"),
        ({"start_at": "2030-01-01T09:00:00"}, "start_at: must be a date and time with a time zone (RFC 3339)"),
    ],
)
def test_a_reason_is_in_our_own_words(changes: dict[str, Any], reason: str) -> None:
    """A reason is our own text: pydantic's texts are written for developers, not for publishers."""
    content = {"type": "sendout", "id": ID, "message": "m", "recipients": [{"email": "a@b.de"}]} | changes
    [found] = reasons_for(content)
    assert found.endswith(reason)


_NAME_OR_NUMBER = "must be a name of at most 200 printable characters, or a number from 1 to 10000"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": {"sheet": 0}}, f"format.sheet: {_NAME_OR_NUMBER}"),
        ({"format": {"column": "a\nb"}}, f"format.column: {_NAME_OR_NUMBER}"),
        ({"format": {"where": ["x"]}}, "format.where.0: not a condition: write COLUMN=VALUE or COLUMN!=VALUE"),
        ({"format": {"force_encoding": True}}, "format: force_encoding needs an encoding other than utf-8"),
        ({"format": {"encoding": "y"}}, "format.encoding: unknown encoding; examples: cp1252, iso-8859-2, utf-16"),
        ({"format": {"columns": ["a"]}}, "format.columns needs a group: codes have no attributes"),
        (
            {"list": None, "group": "g", "format": {"allow_lookalikes": True}},
            "format.allow_lookalikes needs a list: only codes are checked for look-alikes",
        ),
    ],
)
def test_an_option_of_an_import_that_is_wrong_or_idle_has_one_reason(changes: dict[str, Any], reason: str) -> None:
    """The reason names the field and what it needs."""
    assert reasons_for({"type": "import", "id": ID, "list": "a", "source": "file:///x"} | changes) == [reason]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'"' + b"x" * MAX_COMMAND_BYTES + b'"'])
def test_other_bytes_are_rejected(body: bytes) -> None:
    """The decoder raises only InvalidCommand for bytes that are not a command."""
    with pytest.raises(InvalidCommand):
        decode(body)


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected(body: bytes) -> None:
    """Random bytes are rejected with InvalidCommand."""
    with pytest.raises(InvalidCommand):
        decode(body)


@pytest.mark.parametrize("value", ["\\u0000", "\\n", "\\ud800", "\\u2028"])
def test_characters_that_mails_cannot_contain_are_rejected(value: str) -> None:
    """Characters that neither Postgres nor a mail accepts are rejected, although JSON can encode them."""
    recipients = f'[{{"email":"a@example.org","attributes":{{"first_name":"{value}"}}}}]'
    for rest in (
        f'"type":"sendout","message":"m","recipients":{recipients}',
        f'"type":"import","list":"a","source":"file:///{value}"',
    ):
        with pytest.raises(InvalidCommand):
            decode(f'{{"id":"{ID}",{rest}}}'.encode())


def test_a_reason_never_quotes_a_value() -> None:
    """A reason contains no codes and addresses, because reasons appear in logs and headers."""
    secret = "GEHEIM-4711 "
    for content in (
        {"type": "import", "id": ID, "list": "x" * 60 + secret, "codes": [secret], "mode": secret},
        {"type": "sendout", "id": ID, "message": "m", "recipients": [{"email": secret}]},
    ):
        assert not any(secret.strip() in reason for reason in reasons_for(content))


@pytest.mark.parametrize(
    ("command", "content"),
    [
        (StartSendout(message="m", group="g"), {"message": "m", "group": "g", "recipients": None}),
        (ResumeSendout(sendout=UUID(ID)), {"sendout": ID}),
    ],
)
def test_a_command_without_after_keeps_its_digest(command: Command, content: dict[str, str | None]) -> None:
    """A command of an earlier version that is published again is recognized; a command with `after` is another one."""
    before = hashlib.sha256(json.dumps({"type": command.type, **content}, sort_keys=True).encode()).digest()
    assert command.digest() == before
    assert command.model_copy(update={"after": (UUID(ID),)}).digest() != before


@pytest.mark.parametrize("of", [{"type": "sendout", "message": "m", "group": "g"}, {"type": "resume", "sendout": ID}])
@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (["x"], "after.0: must be a UUID"),
        ([ID, ID.upper()], "after: contains an id twice"),
        ([str(uuid4()) for _ in range(101)], "after: 101 items exceed the limit of 100"),
        (ID, "after: must be an array"),
    ],
)
def test_after_names_different_imports(of: dict[str, str], after: object, reason: str) -> None:
    """`after` is an array of at most 100 ids, in any spelling of a UUID, each once."""
    assert reasons_for({**of, "id": ID, "after": after}) == [reason]


def test_the_same_content_has_the_same_digest() -> None:
    """Commands with different ids and the same content have the same digest."""
    one = ResumeSendout(sendout=UUID(ID))
    assert one.digest() == ResumeSendout(sendout=UUID(ID)).digest()
    assert one.digest() != ResumeSendout(sendout=uuid4()).digest()
