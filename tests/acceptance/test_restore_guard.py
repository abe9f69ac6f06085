"""A dump is restored in the middle of a sendout, and a replica is promoted too early.

The tests use PostgreSQL's own programs on a private server.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.services import Services, Sink, private_sink
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes
from tests.clusters import Cluster, cluster, cut_off, promote, with_database
from tests.services import execute
from tests.waiting import eventually

CUSTOMERS = addresses(300)
SPRING = codes("SPRING", 400)
MAX_IN_FLIGHT = 40
PACE: dict[str, Any] = {"batch_size": 20, "max_in_flight": MAX_IN_FLIGHT, "sweep_seconds": 1}
REFUSED = "sending blocked by the restore guard"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def slow_sink(tmp_path: Path) -> Iterator[Sink]:
    """Provide a sink that accepts about 60 mails/s over ten connections: slow enough to act during a sendout."""
    with private_sink(tmp_path / "slow.jsonl", "--delay", "0.15") as sink:
        yield sink


def shop_at(url: str, broker_url: str, sink: Sink, folder: Path) -> Shop:
    folder.mkdir()
    return Shop(Services(url, broker_url, sink.url, sink.ledger), sink, folder)


def test_a_dump_restored_in_the_middle_of_a_sendout_sends_nothing_twice(
    server: Cluster, broker_url: str, slow_sink: Sink, tmp_path: Path
) -> None:
    """No mail leaves before `restore-guard accept`. With --uncertain no mail is sent again even after that.

    New mails have codes that were never sent before.
    """
    with server.running() as url:
        shop = shop_at(url, broker_url, slow_sink, tmp_path / "before")
        shop.coupons("migrate")
        with shop.worker(**PACE):
            shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
            shop.has("second", "others", addresses(100), {})
            sendout = shop.begin_sending("spring-voucher", "customers")
            shop.mails_come(60)
            dump = server.dump(url)
            shop.becomes("finished", sendout)
        mailed = shop.mails()
        assert_own_codes(mailed, CUSTOMERS, SPRING)

        asyncio.run(execute(url, "CREATE DATABASE restored TEMPLATE template0"))
        server.replay(with_database(url, "restored"), dump)
        shop = shop_at(with_database(url, "restored"), broker_url, slow_sink, tmp_path / "restored")
        with shop.worker(**PACE) as worker:
            worker.says(REFUSED)
            refused = shop.coupons("restore-guard", "show", "--json", code=FAILED).json
            (numbers,) = refused["since"]["sendouts"]
            assert "restored from a dump" in refused["refusal"]
            assert numbers["remaining"] == len(
                [*filter(lambda state: state == "pending", shop.deliveries(sendout).values())]
            )
            assert numbers["remaining"] <= len(CUSTOMERS) - 60 + MAX_IN_FLIGHT
            assert refused["since"]["lists"] == [{"name": "spring-10", "available": 100, "reserved": reserved(shop)}]
            assert "restored from a dump" in shop.coupons("doctor", code=FAILED).out
            eventually(lambda: "coupons restore-guard accept" in shop.coupons("outbox").out, "the Outbox to say why")
            shop.coupons("restore-guard", "accept", "--uncertain", code=WRONG_USAGE)
            assert (len(shop.mails()), worker.log.count(REFUSED)) == (len(mailed), 1)

            accepted = shop.coupons("restore-guard", "accept", "--uncertain", "--yes", "--json").json
            assert (accepted["accepted"], accepted["uncertain"]) == (True, numbers["remaining"])
            shop.becomes("finished", sendout)
            shop.coupons("uncertain", sendout, "--accept")
            assert len(shop.mails()) == len(mailed)
            second = shop.send("spring-voucher", "others")
        assert_own_codes(shop.mails(second["id"]), addresses(100), SPRING)
        assert len({code for mail in shop.mails() for code in mail.codes}) == len(SPRING)
        shop.coupons("restore-guard", "show")
        shop.verify()


def reserved(shop: Shop) -> int:
    return shop.get_list("spring-10").reserved


def test_a_promoted_stale_replica_sends_nothing_before_it_is_accepted(
    server: Cluster, broker_url: str, slow_sink: Sink, tmp_path: Path
) -> None:
    """A stale replica replaces a dead primary while a worker has claimed batches.

    The worker sends no mail before `restore-guard accept`. After that it resends at most as many mails as
    `restore-guard show` had reported.
    """
    with ExitStack() as primary:
        url = primary.enter_context(server.running())
        shop = shop_at(url, broker_url, slow_sink, tmp_path / "shop")
        shop.coupons("migrate")
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
        replica = server.replica()
        with shop.worker(**PACE) as worker:
            with replica.running() as replica_url:
                sendout = shop.begin_sending("spring-voucher", "customers")
                shop.mails_come(60)
                asyncio.run(cut_off(replica_url))
                shop.mails_come(150)
                primary.close()
                asyncio.run(promote(replica_url))
            with replace(replica, port=server.port).running():
                had_come = len(shop.mails())
                worker.says(REFUSED)
                refused = shop.coupons("restore-guard", "show", "--json", code=FAILED).json
                (numbers,) = refused["since"]["sendouts"]
                assert "it is on timeline 2, and timeline 1 was accepted" in refused["refusal"]
                assert numbers["remaining"] + numbers["uncertain"] >= len(CUSTOMERS) - 150
                before = Counter(mail.recipient for mail in shop.mails())
                assert sum(before.values()) <= had_come + MAX_IN_FLIGHT
                assert {*before.values()} == {1}

                shop.coupons("restore-guard", "accept", "--yes")
                shop.becomes("finished", sendout)
                after = Counter(mail.recipient for mail in shop.mails())
                assert sum(after.values()) - len(after) <= numbers["remaining"]
                states = shop.deliveries(sendout)
                assert {*states} == {*CUSTOMERS}
                assert {address for address, state in states.items() if state == "sent"} <= {*after}
                shop.verify()
                worker.stop()


def test_accepting_on_a_terminal_asks_for_confirmation(shop: Shop) -> None:
    """The command shows the numbers and accepts only after a yes. It does not ask about accepted data."""
    shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
    assert "is accepted" in shop.on_terminal("restore-guard", "accept", typed="\n").err
    shop.rows("DELETE FROM restore_guard")
    result = shop.on_terminal("restore-guard", "accept", typed="n\n")
    assert (result.code, "Aborted" in result.err) == (FAILED, True)
    assert re.search(r"spring-10 +400 +0", result.err)
    shop.coupons("restore-guard", "show", code=FAILED)
    assert "accepted: workers start sending" in shop.on_terminal("restore-guard", "accept", typed="y\n").err
    assert "is accepted" in shop.coupons("restore-guard", "show").out
