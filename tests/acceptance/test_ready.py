"""`/livez`, `/readyz` and `coupons ready` for a console, and for a worker from its start to its end."""

import json
import os
import signal
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from sandbox.process import free_ports
from tests.acceptance.gateway import Gate
from tests.acceptance.processes import FAILED, Result
from tests.acceptance.system import Shop, addresses, codes
from tests.waiting import eventually

READY = {"database": True, "consumers": True, "accepting": True, "restore_guard": True}


def probe(port: int, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
    """Return the HTTP status, or 0 without a response, and the body."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def test_a_worker_is_live_before_its_services_and_ready_with_them(shop: Shop) -> None:
    """A worker is ready once it consumes commands. `/readyz` reports each missing service, but no secret."""
    (port,) = free_ports(1)
    database, broker = Gate(shop.services.database_url), Gate(shop.services.broker_url)
    urls = {"database_url": database.url, "broker_url": broker.url}
    with shop.worker(ready=False, health_port=port, **urls):
        eventually(lambda: probe(port, "/livez") == (200, {"live": True}), "the worker to respond")
        without_database = shop.coupons("ready", health_port=port, code=FAILED)
        assert "database: not connected yet" in without_database.err
        assert "consumers: no consumer registered yet" in without_database.err
        with database.opened():
            eventually(lambda: probe(port)[1].get("database"), "the database to be reached")
            without_broker = shop.coupons("ready", "--json", health_port=port, code=FAILED)
            assert not without_broker.json["ready"]
            assert "coupons.sendout" in without_broker.json["parts"]["consumers"]
            assert without_broker.json["parts"]["database"] is None
            timed_out = shop.coupons("ready", "--wait", 1, health_port=port, code=FAILED)
            assert timed_out.err.count("waiting: consumers: no consumer on ") == 1
            waiting = shop.begin("ready", "--wait", 30, health_port=port)
            with broker.opened():
                result = waiting()
                assert (result.code, result.out) == (0, "ready: database, restore_guard, consumers, accepting\n")
                assert probe(port) == (200, READY)
    printed = without_database.err + without_broker.out + timed_out.err
    passwords = [str(urlsplit(url).password) for url in urls.values()]
    assert not [each for each in (*urls.values(), *passwords, "amqp:", "postgresql:", "Errno") if each in printed]


def test_a_worker_that_shuts_down_is_live_and_not_ready(slow_shop: Shop) -> None:
    """The worker gets no new work, and an orchestrator does not kill it."""
    (port,) = free_ports(1)
    with slow_shop.worker(health_port=port, sweep_seconds=1) as worker:
        slow_shop.has("spring-voucher", "customers", addresses(300), {"spring-10": codes("SPRING", 300)})
        slow_shop.begin_sending("spring-voucher", "customers")
        slow_shop.mails_come(10)
        os.kill(worker.pid, signal.SIGTERM)
        worker.says("shutting down")
        status, answer = probe(port)
        assert (status, answer["accepting"], answer["database"]) == (503, False, True)
        assert answer["reasons"]["accepting"] == "shutting down"
        assert probe(port, "/livez") == (200, {"live": True})
        assert "worker stopped" not in worker.log
        eventually(lambda: worker.is_dead, "the worker to exit")


def test_a_health_port_in_use_is_an_error(shop: Shop) -> None:
    """The worker exits with an error of one line before any work begins."""
    (port,) = free_ports(1)
    with shop.worker(health_port=port):
        result = shop.coupons("worker", health_port=port, code=FAILED)
    assert result.err == f"coupons: cannot listen on 127.0.0.1:{port} (COUPONS_HEALTH_PORT): Address already in use\n"


def test_the_console_is_checked_if_no_health_port_is_set(shop: Shop) -> None:
    """`coupons ready` uses COUPONS_WEB_PORT then, and reports if no process responds."""
    (port,) = free_ports(1)
    shop.file(".env", f"COUPONS_WEB_PORT={port}\n")
    no_process = shop.coupons("ready", code=FAILED)
    assert f"no response from http://127.0.0.1:{port}/readyz" in no_process.err
    waiting = shop.begin("ready", "--wait", 30)
    waited: list[Result] = []

    def is_ready() -> bool:
        waited.append(waiting())
        return True

    ended = shop.interrupted("web", when=is_ready, what="the console to be ready")
    assert (ended.code, waited[0].out) == (0, "ready: database, broker\n")
