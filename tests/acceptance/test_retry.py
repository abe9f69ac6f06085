"""Refused recipients are mailed again, and exit codes and warnings show whether every recipient was mailed."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from sandbox.services import Services, Sink
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, INTERRUPTED, NOT_ALL_MAILED, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

WARNING = "sendout finished with refused or uncertain mails"


@pytest.fixture(scope="module")
def quick_shop(open_services: Services, open_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Provide a shop for all tests of the module, whose worker looks for work twice per second."""
    shop = Shop(open_services, open_sink, tmp_path_factory.mktemp("shop"))
    with shop.worker(sweep_seconds=0.5):
        yield shop
    shop.verify()


def test_refused_recipients_are_mailed_after_a_retry(quick_shop: Shop) -> None:
    """A relay refuses two recipients and later accepts them. They get their mail once, with a code of their own."""
    audience = [*addresses(3), "refuseonce.a@example.org", "refuseonce.b@example.org"]
    quick_shop.has("again", "again", audience, {"again": codes("AGAIN", 5)})
    sendout = quick_shop.send("again", "again", code=NOT_ALL_MAILED)["id"]
    assert quick_shop.get_list("again").available == 2
    done = quick_shop.coupons("retry", sendout, "--wait", "--json")
    assert (done.json["sent"], done.json["refused"], done.json["state"]) == (5, 0, "finished")
    assert done.err == ""
    assert_own_codes(quick_shop.mails(sendout), audience, codes("AGAIN", 5))
    assert "no mails queued" in quick_shop.coupons("retry", sendout).out
    replies = quick_shop.coupons("show", sendout, "--replies").out
    assert replies.count("550 5.1.1") == 2


def test_a_corrected_address_gets_the_mail(quick_shop: Shop) -> None:
    """The mail with its code arrives at the new address once. The other refused recipient is not tried again."""
    audience = [*addresses(2), "refuse.typo@example.org", "refuse.other@example.org"]
    quick_shop.has("typo", "typo", audience, {"typo": codes("TYPO", 4)})
    sendout = quick_shop.send("typo", "typo", code=NOT_ALL_MAILED)["id"]
    correction = ("retry", sendout, "--address", "refuse.typo@example.org=Right@example.org")
    done = quick_shop.coupons(*correction, "--wait", code=NOT_ALL_MAILED)
    assert "1 refused mail (1 corrected address) queued for retrying" in done.err
    assert (
        f"1 mail was refused: see `coupons show {sendout} --replies`; retry with `coupons retry {sendout}`" in done.out
    )
    assert_own_codes(quick_shop.mails(sendout), [*addresses(2), "Right@example.org"], codes("TYPO", 4))
    (mail,) = quick_shop.coupons("who", "--email", "right@example.org", "--json").json
    assert [(each["address"], each["outcome"]) for each in mail["answers"]] == [
        ("refuse.typo@example.org", "refused"),
        ("Right@example.org", "sent"),
    ]
    again = quick_shop.coupons(*correction, code=FAILED).err
    assert again == f"coupons: refuse.typo@example.org is not a recipient of sendout {sendout}\n"
    assert "no-at-sign" in quick_shop.coupons("retry", sendout, "--address", "a@b.de=no-at-sign", code=FAILED).err
    quick_shop.coupons("retry", sendout, "--address", "a@b.de", code=WRONG_USAGE)


def test_a_retry_with_too_few_codes_reports_the_numbers(quick_shop: Shop) -> None:
    """The exit code is 4 and nothing is changed. After an import the retry succeeds."""
    audience = [*addresses(2), "refuseonce.c@example.org", "refuseonce.d@example.org"]
    quick_shop.has("scarce", "scarce", audience, {"scarce": codes("SCARCE", 4)})
    sendout = quick_shop.send("scarce", "scarce", code=NOT_ALL_MAILED)["id"]
    quick_shop.coupons(*quick_shop.importing_group("one-more", ["grace@example.org"]))
    quick_shop.send("scarce", "one-more")
    before = quick_shop.contents()
    reason = "coupons: not enough codes: list scarce: 2 needed, 1 available, 1 missing; import the missing codes"
    assert reason in quick_shop.coupons("retry", sendout, code=INTERRUPTED).err
    assert reason in quick_shop.on_terminal("retry", sendout, typed="y\n").err
    assert quick_shop.contents() == before
    quick_shop.import_codes("scarce", ["SCARCE-00005"])
    quick_shop.coupons("retry", sendout, "--refused", "--wait")


def test_a_terminal_asks_before_a_retry(quick_shop: Shop) -> None:
    """The question has the numbers of mails and codes. Without a confirmation nothing is retried."""
    quick_shop.has("asked", "asked", ["refuse.f@example.org"], {"asked": codes("ASKED", 3)})
    sendout = quick_shop.send("asked", "asked", code=FAILED)["id"]
    result = quick_shop.on_terminal("retry", sendout, typed="n\n")
    assert "list asked: 1 code needed, 3 available" in result.err
    assert "Send 1 refused mail again?" in result.err
    assert (result.code, quick_shop.state(sendout)) == (FAILED, "finished")
    assert "no mails to retry" in quick_shop.on_terminal("retry", sendout, "--deferred", typed="y\n").err


def test_a_sending_or_paused_sendout_can_be_retried(quick_shop: Shop) -> None:
    """Deferred mails are sent now, and with a corrected address. A paused sendout stays paused until it is resumed."""
    audience = [*addresses(2), "defer.a@example.org", "defer.b@example.org", "refuseonce.g@example.org"]
    quick_shop.has("later", "later", audience, {"later": codes("LATER", 5)})
    sendout = quick_shop.begin_sending("later", "later")
    states = {"sent": 2, "deferred": 2, "refused": 1}
    eventually(lambda: counts(quick_shop, sendout) == states, "a refused mail and two deferred ones")
    quick_shop.coupons("pause", sendout)
    done = quick_shop.coupons("retry", sendout, "--refused", "--deferred", "--json").json
    assert (done["refused"], done["deferred"], done["state"]) == (1, 2, "paused")
    assert done["lists"] == [{"name": "later", "shortage": "pause", "needed": 1, "available": 1, "missing": 0}]
    assert f"`coupons resume {sendout}`" in quick_shop.coupons("retry", sendout, "--deferred").out
    assert quick_shop.resume(sendout)["sent"] == 5
    assert_own_codes(quick_shop.mails(sendout), audience, codes("LATER", 5))


def counts(shop: Shop, sendout: object) -> dict[str, int]:
    """Return the number of deliveries in each state."""
    states = [*shop.deliveries(str(sendout)).values()]
    return {state: states.count(state) for state in states}


# --- exit codes and warnings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "audience", "code"),
    [
        ("all-mailed", addresses(2), 0),
        ("one-refused", [*addresses(2), "refuse.h@example.org"], NOT_ALL_MAILED),
        ("one-uncertain", [*addresses(2), "drop.h@example.org"], NOT_ALL_MAILED),
        ("all-uncertain", ["drop.i@example.org"], NOT_ALL_MAILED),
        ("none-mailed", ["refuse.j@example.org", "refuse.k@example.org"], FAILED),
    ],
)
def test_the_exit_code_shows_whether_every_recipient_was_mailed(
    quick_shop: Shop, name: str, audience: list[str], code: int
) -> None:
    """`show` and `outbox` report the mails that were refused or are uncertain, and the worker logs a warning."""
    quick_shop.has(name, name, audience, {name: codes(name.upper(), len(audience))})
    result = quick_shop.coupons("send", "--message", name, "--group", name, "--wait", "--json", code=code)
    sendout = result.json
    log = quick_shop.worker_logs[0]
    if code == 0:
        assert result.err == ""
        assert sendout["id"] not in "".join(line for line in log.read_text().splitlines() if WARNING in line)
        return
    kind, command = ("refused", "retry") if sendout["refused"] else ("uncertain", "uncertain")
    for output in (result.err, quick_shop.coupons("show", sendout["id"]).out):
        assert kind in output
        assert f"`coupons {command} {sendout['id']}`" in output
    outbox = quick_shop.coupons("outbox", "--limit", 1)
    assert f"{sendout[kind]} {kind}" in outbox.out
    assert "1 sendout finished with refused or uncertain mails: see `coupons show ID`\n" in outbox.err
    (warning,) = eventually(
        lambda: [line for line in log.read_text().splitlines() if WARNING in line and sendout["id"] in line],
        "a warning in the worker's log",
    )
    assert f"refused={sendout['refused']}" in warning
    assert f"uncertain={sendout['uncertain']}" in warning
    assert "warning" in warning


@pytest.mark.parametrize(("command", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_stopped_sendout_exits_with_1(quick_shop: Shop, command: str, state: str) -> None:
    """A waiting command ends with code 1 if an operator pauses or cancels the sendout."""
    quick_shop.has(state, state, addresses(3), {state: codes(state.upper(), 3)})
    sendout = uuid4()
    arguments = ("--message", state, "--group", state, "--id", sendout, "--start-at", "2100-01-01T00:00Z", "--wait")
    waiting = quick_shop.begin("send", *arguments, "--json")
    quick_shop.becomes("sending", sendout)
    quick_shop.coupons(command, sendout)
    result = waiting()
    assert (result.code, result.json["state"]) == (FAILED, state)


def test_a_cancelled_sendout_is_not_retried(quick_shop: Shop) -> None:
    """One line names the state, and nothing is changed."""
    quick_shop.has("ended", "ended", ["defer.z@example.org", "refuse.z@example.org"], {"ended": codes("ENDED", 2)})
    sendout = quick_shop.begin_sending("ended", "ended")
    eventually(lambda: counts(quick_shop, sendout) == {"deferred": 1, "refused": 1}, "a refused and a deferred mail")
    quick_shop.coupons("cancel", sendout)
    refused = quick_shop.coupons("retry", sendout, code=FAILED)
    assert refused.err.startswith(f"coupons: sendout {sendout} is cancelled: only mails of a sending, paused or")
    assert "`coupons retry" not in quick_shop.coupons("show", sendout).out
