"""A second SIGTERM does not wait for a relay that never replies."""

from pathlib import Path

from tests.acceptance.processes import DONE, FAILED
from tests.acceptance.system import Shop
from tests.acceptance.test_workers import CUSTOMERS, IMPATIENT, SPRING
from tests.smtp_server import Act, process
from tests.waiting import eventually


def test_the_second_signal_exits_immediately(shop: Shop, tmp_path: Path) -> None:
    """Mails in flight become uncertain and keep their codes, as after a kill. Another worker sends the rest."""
    ledger = tmp_path / "ledger"
    ledger.touch()
    with (
        process(ledger, {"DOT": Act(accept=True, then="hang")}) as (_, port),
        shop.worker(**IMPATIENT, smtp_url=f"smtp://127.0.0.1:{port}", smtp_connections=3) as first,
    ):
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
        sendout = shop.begin_sending("spring-voucher", "customers")
        eventually(lambda: len(ledger.read_text().splitlines()) == 3, "three mails that wait for a reply")
        assert first.force() == FAILED
    with shop.worker(**IMPATIENT) as second:
        shop.becomes("finished", sendout)
        assert second.stop() == DONE
    states = list(shop.deliveries(sendout).values())
    assert set(states) <= {"sent", "uncertain"}
    assert 3 <= states.count("uncertain") <= 200
    shop.verify()
