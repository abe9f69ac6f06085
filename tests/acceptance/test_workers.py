"""Workers that die, shut down, start before their services, or get no nudges."""

import os
import subprocess
from typing import Any

from coupons.commands import StartSendout
from tests.acceptance.gateway import Gate
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import COUPONS, DONE, SETTINGS
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

CUSTOMERS = addresses(2_000)
SPRING = codes("SPRING", 2_000)
MAX_IN_FLIGHT = 40
SMALL_BATCHES: dict[str, Any] = {"batch_size": 100, "max_in_flight": MAX_IN_FLIGHT}
IMPATIENT: dict[str, Any] = {"lease_seconds": 3, "heartbeat_seconds": 1, "sweep_seconds": 1, **SMALL_BATCHES}


def test_a_killed_worker_leaves_at_most_its_in_flight_window_uncertain(shop: Shop) -> None:
    """After SIGKILL at full speed no recipient gets two mails. Uncertain mails keep their codes; others are sent."""
    with shop.worker(**IMPATIENT) as first, shop.worker(**IMPATIENT):
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.mails_come(100)
        first.kill()
        assert shop.state(sendout) == "sending"
        shop.becomes("finished", sendout)
    states = shop.deliveries(sendout)
    sent = {address for address, state in states.items() if state == "sent"}
    uncertain = {address for address, state in states.items() if state == "uncertain"}
    assert sent | uncertain == set(CUSTOMERS)
    assert len(uncertain) <= MAX_IN_FLIGHT
    mails = shop.mails(sendout)
    assert_own_codes(mails, {mail.recipient for mail in mails}, SPRING)
    assert sent <= {mail.recipient for mail in mails}
    spring = shop.get_list("spring-10")
    assert (spring.available, spring.assigned, spring.sent) == (0, len(uncertain), len(sent))
    shop.verify()


def test_a_graceful_shutdown_leaves_no_mail_uncertain(shop: Shop) -> None:
    """After SIGTERM the worker records the outcomes of mails in flight and exits with 0. Another one sends the rest."""
    with shop.worker(**SMALL_BATCHES) as first:
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.mails_come(100)
        assert first.stop() == DONE
    states = shop.deliveries(sendout)
    mails = shop.mails(sendout)
    assert set(states.values()) == {"sent", "pending"}
    assert {address for address, state in states.items() if state == "sent"} == {mail.recipient for mail in mails}
    assert shop.rows("SELECT FROM delivery_batch WHERE lease_token IS NOT NULL") == []
    with shop.worker():
        shop.becomes("finished", sendout)
    assert_own_codes(shop.mails(sendout), CUSTOMERS, SPRING)
    shop.verify()


def test_an_import_continues_where_a_killed_worker_left_it(shop: Shop) -> None:
    """After SIGKILL between two chunks each code is in the list once, and every line is counted."""
    many = [f"MANY{number:012}" for number in range(250_000)]
    impatient = {**IMPATIENT, "lease_seconds": 1.5, "heartbeat_seconds": 0.5}
    with shop.worker("import", **impatient) as first:
        shop.coupons("list", "create", "spring-10")
        ending = shop.begin(*shop.importing("spring-10", many), "--mode", "replace", "--json")
        eventually(lambda: shop.rows("SELECT FROM import_job WHERE added > 0"), "the first codes")
        first.kill()
    assert shop.rows("SELECT FROM import_job WHERE state = 'running'")
    with shop.worker("import", **impatient):
        result = ending()
    assert (result.code, result.json["lines"], result.json["added"]) == (DONE, len(many), len(many))
    assert shop.get_list("spring-10").available == len(many)


def test_a_sweep_finds_work_whose_nudges_were_lost(shop: Shop) -> None:
    """The queue of nudges (wake-up messages) is deleted before the sendout is ready, and a sweep finds the sendout."""
    with shop.worker("import", "sendout") as preparing, shop.worker("deliver", sweep_seconds=1) as delivering:
        shop.has("spring-voucher", "customers", CUSTOMERS[:100], {"spring-10": SPRING})
        shop.delete_queues("coupons.deliver")
        sendout = StartSendout(message="spring-voucher", group="customers")
        shop.publish(sendout)
        preparing.says("could not wake other workers")
        shop.becomes("finished", sendout.id)
        delivering.says("broker unavailable, retrying")
    assert_own_codes(shop.mails(), CUSTOMERS[:100], SPRING)


def test_deleted_queues_are_declared_again(shop: Shop) -> None:
    """After the broker has lost everything, the worker declares its queues again and consumes new commands."""
    with shop.worker() as worker:
        shop.has("spring-voucher", "customers", CUSTOMERS[:10], {"spring-10": SPRING})
        shop.delete_queues("coupons.import", "coupons.sendout", "coupons.resume", "coupons.deliver", "coupons.dead")
        eventually(lambda: worker.log.count("consuming commands") == 2, "the queues to be declared again")
        assert shop.send("spring-voucher", "customers")["sent"] == 10
    assert_own_codes(shop.mails(), CUSTOMERS[:10], SPRING)


def test_a_worker_waits_for_services_that_start_after_it(shop: Shop) -> None:
    """The database and the broker are unreachable at first. The worker works as soon as they are available."""
    database, broker = Gate(shop.services.database_url), Gate(shop.services.broker_url)
    with shop.worker(ready=False, database_url=database.url, broker_url=broker.url) as worker:
        worker.says("database unavailable, retrying")
        with database.opened():
            worker.says("broker unavailable, retrying")
            with broker.opened():
                worker.says("consuming commands")
                shop.has("spring-voucher", "customers", CUSTOMERS[:10], {"spring-10": SPRING})
                assert shop.send("spring-voucher", "customers")["sent"] == 10
                worker.stop()
    assert_own_codes(shop.mails(), CUSTOMERS[:10], SPRING)


def test_a_worker_does_not_start_with_invalid_mail_settings(shop: Shop) -> None:
    """The error contains both invalid settings, and appears before any work begins."""
    wrong = {"bounce_address": "bounces+{id}", "unsubscribe_url": "ftp://example.org/{name}"}
    result = shop.coupons("worker", code=1, **wrong)
    assert "bounce address" in result.err
    assert "unsubscribe URL" in result.err


def test_a_worker_does_not_start_on_an_unmigrated_database(shop: Shop, empty_database_url: str) -> None:
    """The worker and every command ask the operator to run `coupons migrate`, which fixes the problem."""
    for arguments in (("worker",), ("list", "ls")):
        result = shop.coupons(*arguments, code=1, database_url=empty_database_url)
        assert "coupons migrate" in result.err
        assert result.err.count("\n") == 1
    assert "applied 0001" in shop.coupons("migrate", database_url=empty_database_url).out
    assert "applied" not in shop.coupons("migrate", database_url=empty_database_url).out
    shop.coupons("list", "ls", database_url=empty_database_url)


def test_a_worker_continues_without_its_log(shop: Shop) -> None:
    """If the reader of its log ends, as in `coupons worker 2>&1 | tee log`, a worker mails on, and exits with 0."""
    shop.has("spring-voucher", "customers", addresses(20), {"spring-10": codes("SPRING", 20)})
    environment = os.environ | SETTINGS | shop.services.environment()
    with subprocess.Popen([COUPONS, "worker"], env=environment, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stderr
            assert any("consuming commands" in line for line in worker.stderr)
            worker.stderr.close()
            assert shop.send("spring-voucher", "customers")["sent"] == 20
        finally:
            worker.terminate()
        assert worker.wait() == DONE
