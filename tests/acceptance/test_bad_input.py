"""A command that cannot be executed prints one line with the cause, exits with an error code and changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.acceptance.processes import FAILED, REJECTED_LINES, Result
from tests.acceptance.queues import Dead, body
from tests.acceptance.system import Shop, addresses, codes, letter
from tests.waiting import eventually

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x10\x00\x00\x00\x10\x08\x06\x00\x00\x00\x1f\xf3\xffa"
TWO_LINES = "ada@example.org\nBcc: everybody@example.org"
NOBODY = "99999999-9999-4999-8999-999999999999"
MANY_BYTES = 3 * 1_048_576  # a command may have at most a third of this size


@dataclass(frozen=True, slots=True)
class Stock:
    """A shop with a worker, a finished sendout, and a running sendout whose only mail is deferred."""

    shop: Shop
    finished: str
    running: str

    def refuses(self, *arguments: object, names: str, code: int = FAILED) -> Result:
        """Check that the command exits with this code, prints one line with `names` on stderr, and changes nothing."""
        before = self.shop.contents()
        result = self.shop.coupons(*arguments, code=code)
        assert result.out == ""
        assert names in result.err
        assert result.err.count("\n") == 1, result.err
        assert self.shop.contents() == before
        return result


@pytest.fixture(scope="module")
def stock(open_shop: Shop) -> Iterator[Stock]:
    open_shop.has("spring-voucher", "customers", addresses(3), {"spring-10": codes("SPRING", 20)})
    finished = open_shop.send("spring-voucher", "customers")["id"]
    header_only = open_shop.file("empty.csv", "email;first_name\n")
    waiting = open_shop.importing_group("waiting", ["defer.me@example.org"])
    open_shop.together(waiting, ("group", "import", header_only, "--group", "empty", "--wait"))
    running = open_shop.begin_sending("spring-voucher", "waiting")
    eventually(lambda: is_idle(open_shop, running), "the deferred mail")
    yield Stock(open_shop, finished, str(running))


def is_idle(shop: Shop, sendout: UUID) -> bool:
    """Return whether the sendout's mail is deferred and its batch is released."""
    held = shop.rows("SELECT FROM delivery_batch WHERE sendout_id = $1 AND lease_token IS NOT NULL", sendout)
    return set(shop.deliveries(sendout).values()) == {"deferred"} and not held


# --- the command line ---


def test_an_import_into_an_unknown_list_is_refused(stock: Stock) -> None:
    """The file is not stored if its list does not exist."""
    stock.refuses(*stock.shop.importing("sprung-10", ["A1"]), names="sprung-10")


def test_a_binary_file_of_coupons_is_refused(stock: Stock) -> None:
    """A picture is rejected before it is uploaded."""
    picture = stock.shop.file("codes.png", PNG)
    stock.refuses("import", picture, "--list", "spring-10", "--wait", names="codes.png")


def test_a_binary_file_of_recipients_is_refused(stock: Stock) -> None:
    """A picture is rejected before it is uploaded."""
    picture = stock.shop.file("people.png", PNG)
    stock.refuses("group", "import", picture, "--group", "customers", names="people.png")


def test_a_message_that_names_an_unknown_list_is_refused(stock: Stock) -> None:
    """A message with an unknown list is not saved, because it could never be sent."""
    stock.refuses(*stock.shop.saving("unlisted", letter("nowhere-99")), names="nowhere-99")


def test_a_message_with_an_undefined_placeholder_is_refused(stock: Stock) -> None:
    """The error contains the placeholder that no recipient has; otherwise a typing error would be in every mail."""
    stock.refuses(*stock.shop.saving("slip", 'Dear {{ frist_name }}: {{ coupon("spring-10") }}'), names="frist_name")


def test_a_sendout_of_an_unknown_message_is_refused(stock: Stock) -> None:
    """No command is published if the message does not exist."""
    stock.refuses("send", "--message", "sprung-voucher", "--group", "customers", names="sprung-voucher")


def test_a_sendout_to_an_unknown_group_is_refused(stock: Stock) -> None:
    """No command is published if the group does not exist."""
    stock.refuses("send", "--message", "spring-voucher", "--group", "costumers", names="costumers")


def test_a_sendout_to_an_empty_group_is_refused(stock: Stock) -> None:
    """A group is empty if its file had only a header; a sendout to it is refused."""
    stock.refuses("send", "--message", "spring-voucher", "--group", "empty", names="empty")


def test_a_sendout_to_recipients_without_what_the_message_needs_is_refused(stock: Stock) -> None:
    """An address on the command line has no attributes, but the message prints {{ first_name }}."""
    stock.refuses("send", "--message", "spring-voucher", "--to", "ada@example.org", names="first_name")


@pytest.mark.parametrize("address", [TWO_LINES, "ada@example.org, eve@example.org", "ada"])
def test_a_recipient_that_is_not_exactly_one_address_is_refused(stock: Stock, address: str) -> None:
    """A line break in an address would start another header, and a comma would add another recipient."""
    stock.refuses("send", "--message", "spring-voucher", "--to", address, names="ada")


def test_an_invalid_name_is_refused(stock: Stock) -> None:
    """A message name in `send` and the name of a new list are checked."""
    stock.refuses("send", "--message", "spring/voucher", "--group", "customers", names="name")
    stock.refuses("list", "create", "spring/10", names="name")


def test_an_id_that_belongs_to_another_command_is_refused(stock: Stock) -> None:
    """Without this check a script would wait for a sendout that does not exist."""
    arguments = ("send", "--message", "spring-voucher", "--group", "waiting", "--id", stock.finished)
    stock.refuses(*arguments, names=stock.finished)


def test_an_address_with_a_line_break_in_a_file_is_rejected(stock: Stock) -> None:
    """The line is rejected and reported; recipients that are already in the group stay unchanged."""
    people = stock.shop.file("people.csv", f'email;first_name\n{addresses(1)[0]};Ada\n"{TWO_LINES}";Eve\n')
    known = "SELECT address_key, address, attributes FROM recipient ORDER BY address_key"
    before = stock.shop.rows(known)
    arguments = ("group", "import", people, "--group", "customers", "--wait")
    result = stock.shop.coupons(*arguments, code=REJECTED_LINES)
    assert "line 3" in result.err
    assert result.err.count("\n") == 1
    assert stock.shop.rows(known) == before


def test_only_interrupted_and_paused_sendouts_are_resumed(stock: Stock) -> None:
    """Resuming a finished, running or unknown sendout fails with its id and the reason."""
    assert "finished" in stock.refuses("resume", stock.finished, names=stock.finished).err
    assert "sending" in stock.refuses("resume", stock.running, names=stock.running).err
    stock.refuses("resume", NOBODY, names=NOBODY)


def test_only_a_running_sendout_is_paused_or_cancelled(stock: Stock) -> None:
    """A finished sendout is neither paused nor cancelled. For an unknown sendout the error contains its id."""
    assert "finished" in stock.refuses("pause", stock.finished, names=stock.finished).err
    assert "finished" in stock.refuses("cancel", stock.finished, names=stock.finished).err
    stock.refuses("cancel", NOBODY, names=NOBODY)


# --- raw commands ---


def sendout(**content: Any) -> dict[str, Any]:
    return {"type": "sendout", "id": str(uuid4()), "message": "spring-voucher", **content}


def rejections(shop: Shop, at_least: int) -> list[Dead]:
    return eventually(lambda: found if len(found := shop.dead()) >= at_least else None, f"{at_least} rejections")


@pytest.mark.usefixtures("amqp_tools")
def test_bad_commands_are_rejected_with_a_reason_and_change_nothing(stock: Stock) -> None:
    """Each bad command is moved unchanged to the dead-letter queue. Its header and `coupons doctor` show the reason."""
    import_ = {"type": "import", "id": str(uuid4()), "list": "spring-10"}
    bad: list[tuple[str, dict[str, Any] | bytes, str]] = [
        ("import", {**import_, "list": "sprung-10", "codes": ["A1"]}, "sprung-10"),
        ("import", {**import_, "codes": ["A1"], "source": "upload:1"}, "exactly one of codes and"),
        ("import", {**import_, "codes": ["A1"], "colour": "red"}, "colour"),
        ("sendout", sendout(message="sprung-voucher", group="customers"), "sprung-voucher"),
        ("sendout", sendout(group="costumers"), "costumers"),
        ("sendout", sendout(group="empty"), "empty"),
        ("sendout", sendout(recipients=[{"email": TWO_LINES}]), "recipients.0.email"),
        ("sendout", sendout(recipients=[{"email": "ada@example.org"}]), "first_name"),
        ("resume", {"type": "resume", "id": str(uuid4()), "sendout": stock.finished}, stock.finished),
        ("resume", {"type": "resume", "id": str(uuid4()), "sendout": stock.running}, stock.running),
        ("resume", {"type": "resume", "id": str(uuid4()), "sendout": NOBODY}, NOBODY),
        ("resume", {"type": "resume", "sendout": NOBODY}, "id"),
        ("resume", {"type": "recall", "id": NOBODY}, "type"),
        ("sendout", b"not even JSON", "JSON"),
        ("sendout", b"[" + b" " * MANY_BYTES + b"]", str(MANY_BYTES + 2)),
    ]
    known = len(stock.shop.dead())
    before = stock.shop.contents()
    for routing_key, command, _ in bad:
        stock.shop.amqp_publish(routing_key, command)
    rejected = rejections(stock.shop, known + len(bad))[known:]
    reasons = {each.body: each.reason for each in rejected}
    doctor = stock.shop.coupons("doctor", code=FAILED).out
    for _, command, names in bad:
        reason = reasons[body(command)]
        assert names in reason
        assert "\n" not in reason
        assert reason in doctor
    assert "everybody@example.org" not in " ".join(reasons.values())
    assert stock.shop.contents() == before


@pytest.mark.usefixtures("amqp_tools")
def test_all_errors_of_a_command_are_reported_together(stock: Stock) -> None:
    """One rejection contains all four errors, so that a publisher does not have to fix them one by one."""
    known = len(stock.shop.dead())
    stock.shop.amqp_publish("import", {"type": "import", "id": "1", "list": "a/b", "mode": "mix", "colour": "red"})
    reason = rejections(stock.shop, known + 1)[-1].reason
    assert all(field in reason for field in ("id: ", "list: ", "mode: ", "colour: ")), reason


@pytest.mark.usefixtures("amqp_tools")
def test_a_valid_command_behind_bad_ones_is_not_delayed(stock: Stock) -> None:
    """A valid command that follows thirty bad ones is executed, and all thirty are in the dead-letter queue."""
    known = len(stock.shop.dead())
    import_id = str(uuid4())
    for _ in range(30):
        stock.shop.amqp_publish("import", b"not even JSON")
    good = {"type": "import", "id": import_id, "list": "spring-10", "codes": ["BEHIND-00001"]}
    stock.shop.amqp_publish("import", good)
    stock.shop.becomes("finished", import_id)
    assert len(rejections(stock.shop, known + 30)) == known + 30
