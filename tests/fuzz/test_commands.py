"""Arbitrary bytes in a queue are either a command or rejected with reasons that contain no value of them."""

import json
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupons.commands import MAX_COMMAND_BYTES, MAX_REASONS, InvalidCommand, StartSendout, decode
from tests.fuzz.fuzzing import damaged, fuzzed

VALUE = "SPRING-7K2"
"""A part of the texts that a publisher chooses. No reason may contain it."""
ID = "11111111-2222-4333-8444-555555555555"
FIELDS = (
    *("type", "id", "list", "group", "mode", "codes", "source", "format", "message", "recipients", "sendout"),
    *("start_at", "per_hour", "over_minutes", "auto_resume", "after", "email", "attributes", "first_name"),
    *("kind", "separator", "encoding", "column", "header"),
)
WORDS = (
    *(
        "import",
        "sendout",
        "resume",
        "add",
        "txt",
        "csv",
        ID,
        "upload:" + ID,
        "https://shop.example/a",
        "a@example.org",
    ),
    *("2030-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2030-01-01", "utf-8"),
    *("", "\0", "\ud800", "\u2028", "1e400", "9" * 400, "true", "null"),
)
TEXTS = st.sampled_from(WORDS) | st.text(max_size=8).map(lambda text: f"{text}{VALUE}")
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 10**18, 10**400, 2**63, float("nan"), float("inf")])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | TEXTS, inner, max_size=4),
    max_leaves=12,
)
WHOLE: list[dict[str, Any]] = [
    {"type": "import", "id": ID, "list": "spring", "codes": [VALUE, "B"], "mode": "replace"},
    {"type": "import", "id": ID, "group": "all", "source": "file:a", "format": {"encoding": "cp1252", "column": 2}},
    {"type": "sendout", "id": ID, "message": "m", "group": "g", "start_at": "2030-01-01T09:00Z", "per_hour": 60,
     "after": [ID]},
    {"type": "sendout", "id": ID, "message": "m",
     "recipients": [{"email": "a@example.org", "attributes": {"first_name": VALUE}}], "over_minutes": 90},
    {"type": "resume", "id": ID, "sendout": ID},
]  # fmt: skip


@st.composite
def almost_valid(draw: st.DrawFn) -> bytes:
    """A command in which some fields have arbitrary values."""
    content = dict(draw(st.sampled_from(WHOLE)))
    content |= draw(st.dictionaries(st.sampled_from(FIELDS) | TEXTS, VALUES, max_size=3))
    for name in draw(st.sets(st.sampled_from(sorted(content)), max_size=2)):
        del content[name]
    return json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


BODIES = (
    almost_valid()
    | damaged(st.sampled_from(WHOLE).map(lambda content: json.dumps(content).encode()))
    | VALUES.map(lambda content: json.dumps(content).encode())
    | st.binary(max_size=300)
)


def check(body: bytes) -> None:
    try:
        command = decode(body)
    except InvalidCommand as error:
        assert error.reasons
        assert len(error.reasons) <= MAX_REASONS + 2  # plus the missing id and the number of further errors
        assert VALUE not in str(error)
        str(error).encode()  # it goes into a header and logs
        return
    assert decode(command.body()) == command
    assert len(command.digest()) == 32
    if isinstance(command, StartSendout):
        float(command.per_hour or 1)
        if command.start_at:
            command.start_at.astimezone(UTC)  # as the database stores it


@fuzzed()
@given(BODIES)
def test_any_body_is_a_command_or_rejected(body: bytes) -> None:
    """A valid command can be decoded from its own body, and a reason never contains a publisher's value."""
    check(body)


@fuzzed(0.05)
@given(
    st.sampled_from([b"[", b'{"a":', b'"codes":[', b"[[],", b'{"type":"import","codes":[']),
    st.sampled_from([b"0,", b'"\\ud800",', b"[],", b'{"a":0},', b'"k%d":0,', b" ", b"9", b"-", b'\\"', b"\xc3\xa4"]),
    st.integers(MAX_COMMAND_BYTES - 40, MAX_COMMAND_BYTES + 40) | st.integers(0, 100_000),
    st.sampled_from([b"", b"]", b"]}", b"0]}", b"0}", b'"}']),
)  # fmt: skip
def test_a_mebibyte_of_anything_is_rejected_quickly(start: bytes, again: bytes, size: int, end: bytes) -> None:
    """Nested or repeated values and numbers with a million digits are rejected within seconds, with a few lines."""
    numbered = b"%d" in again
    count = max(0, size - len(start)) // len(again)
    body = b"".join(again % number for number in range(count)) if numbered else again * count
    check(start + body + end)


@fuzzed(0.05)
@given(st.sampled_from(["codes", "recipients", "attributes", "unknown"]), st.integers(900, 150_000), VALUES)
def test_a_mebibyte_of_errors_gives_a_few_lines(what: str, count: int, value: object) -> None:
    """The number of reasons is limited, however many fields or items are wrong."""
    content: dict[str, Any] = {"type": "sendout", "id": ID, "message": "m"}
    match what:
        case "attributes":
            content["recipients"] = [{"email": "a@b.de", "attributes": dict.fromkeys(map(str, range(count)), value)}]
        case "unknown":
            content |= dict.fromkeys(map(str, range(count)), value)
        case _:
            content |= {what: [value] * count}
    check(json.dumps(content).encode())


def sendout(**changes: Any) -> bytes:
    return json.dumps(WHOLE[2] | changes).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (sendout().decode().encode("utf-16"), "not valid UTF-8 JSON"),
        (sendout(per_hour=float("nan")), "not valid UTF-8 JSON"),
        (sendout().replace(b"{", b'{"message": "other", ', 1), "message: duplicate field"),
        (sendout(per_hour=10**400), "per_hour: must be at most 1000000000"),
        (sendout(start_at="9999-12-31T23:59:59-14:00"), "start_at: the year must be between 1970 and 9998"),
        (sendout(start_at="0001-01-01T00:00:00+14:00"), "start_at: the year must be between 1970 and 9998"),
        (json.dumps(WHOLE[1] | {"format": {"encoding": VALUE}}).encode(), "format.encoding: unknown encoding"),
        (json.dumps(WHOLE[0] | {"codes": [0] * 300_000}).encode(), "codes: 300000 items exceed the limit of 1000"),
    ],
)
def test_earlier_findings_stay_fixed(body: bytes, reason: str) -> None:
    """Bodies that were once accepted and failed later, were ambiguous or gave 22 MB of errors are rejected briefly."""
    with pytest.raises(InvalidCommand) as caught:
        decode(body)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200
