"""A worker that died or is blocked shows no life, and what it should do is shown as stalled, with what to do."""

import os
import signal
from typing import Any

from coupons.commands import StartSendout
from tests.acceptance.gateway import Gate
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import DONE, FAILED
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

BRIEF: dict[str, Any] = {"lease_seconds": 1, "heartbeat_seconds": 0.2, "sweep_seconds": 0.5}
ADVICE = "shows life; start one with `coupons worker`"


def checks(shop: Shop, name: str) -> list[dict[str, Any]]:
    """Return the checks of `coupons doctor` whose names begin with this one. Its exit code shows if a check failed."""
    result = shop.begin("doctor", "--json")()
    assert result.code == (DONE if all(each["ok"] for each in result.json) else FAILED)
    return [each for each in result.json if each["name"].startswith(name)]


def is_alive(shop: Shop) -> bool:
    return bool(shop.rows("SELECT FROM worker WHERE alive_until > now()"))


def test_a_killed_worker_shows_no_life(shop: Shop) -> None:
    """Doctor, outbox and show say so. Commands that no worker takes are counted. A new worker does all of it."""
    shop.has("spring", "customers", addresses(5), {"spring": codes("SPRING", 5)})
    with shop.worker("import", "sendout", **BRIEF) as first, shop.worker("deliver", **BRIEF) as second:
        shown = checks(shop, "worker ")
        assert {each["detail"].partition(";")[0] for each in shown} == {"import, sendout", "deliver"}
        assert all("version" in each["detail"] and "last seen 1 s ago" in each["detail"] for each in shown)
        assert ADVICE not in shop.coupons("outbox").err
        second.kill()
        eventually(lambda: len(checks(shop, "worker ")) == 1, "the killed worker to show no life")
        sendout = shop.coupons("send", "--message", "spring", "--group", "customers").out.strip()
        shop.becomes("sending", sendout)
        first.kill()
    eventually(lambda: not is_alive(shop), "the leases to expire")
    shop.rows(
        "WITH moved AS (UPDATE delivery_batch SET due_at = due_at - interval '1 min')"
        "UPDATE sendout SET created_at = created_at - interval '1 min', started_at = started_at - interval '1 min',"
        " next_batch_at = next_batch_at - interval '1 min'"
    )
    shop.publish(StartSendout(message="spring", group="customers"))
    shown_outbox = shop.coupons("outbox")
    assert f"no worker with the role import, sendout or deliver {ADVICE}" in shown_outbox.err
    assert "1 command waits in coupons.sendout, and no worker takes it" in shown_outbox.err
    assert f"stalled: no worker with the role deliver {ADVICE}" in shown_outbox.out
    assert f"stalled: no worker with the role deliver {ADVICE}" in shop.coupons("show", sendout).out
    (stalled,) = shop.coupons("outbox", "--state", "stalled", "--json").json
    assert (stalled["id"], stalled["state"], stalled["needed_role"]) == (sendout, "sending", "deliver")
    (check,) = checks(shop, "workers")
    assert not check["ok"]
    assert f"no worker with the role import, sendout or deliver {ADVICE}" in check["detail"]
    assert check["detail"].count("has shown no life for") == 2
    with shop.worker(**BRIEF):
        shop.becomes("finished", sendout)
        assert ADVICE not in shop.coupons("outbox").err
        assert shop.coupons("outbox", "--state", "stalled", "--json").json == []
    assert not is_alive(shop)
    assert_own_codes(shop.mails(sendout), addresses(5), codes("SPRING", 5))


def test_a_worker_that_stands_still_shows_no_life_until_it_continues(shop: Shop) -> None:
    """Its process exists and its connections are open, but its event loop does not run."""
    with shop.worker(**BRIEF) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        eventually(lambda: not is_alive(shop), "the worker to show no life")
        (check,) = checks(shop, "workers")
        assert not check["ok"]
        assert "has shown no life for" in check["detail"]
        os.kill(worker.pid, signal.SIGCONT)
        eventually(lambda: is_alive(shop), "the worker to show life")
    assert shop.rows("SELECT FROM worker") == []


def test_a_worker_without_its_database_shows_no_life(shop: Shop) -> None:
    """The worker runs and consumes commands, but can do nothing; it shows life again when its database is back."""
    gate = Gate(shop.services.database_url)
    with shop.worker(ready=False, database_url=gate.url, **BRIEF) as worker:
        with gate.opened():
            worker.says("consuming commands")
            assert is_alive(shop)
        gate.cut()
        eventually(lambda: not is_alive(shop), "the worker to show no life")
        with gate.opened():
            eventually(lambda: is_alive(shop), "the worker to show life")
