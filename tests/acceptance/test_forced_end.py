"""A worker that is asked twice to end does not wait for a relay that never answers."""

import socket

from tests.acceptance.programs import DONE, FAILED
from tests.acceptance.shop import Shop
from tests.acceptance.test_workers import CUSTOMERS, IMPATIENT, SPRING


def test_the_second_request_to_end_does_not_wait(shop: Shop) -> None:
    """It ends at once, as if killed: what was in hand is uncertain, its codes stay, and another worker goes on."""
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        shop.worker(**IMPATIENT, smtp_url=f"smtp://127.0.0.1:{deaf.getsockname()[1]}", smtp_connections=3) as first,
    ):
        shop.has("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING})
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.becomes("sending", sendout)
        held = [deaf.accept()[0] for _ in range(3)]  # three mails wait for a greeting that never comes
        assert first.force() == FAILED
        for connection in held:
            connection.close()
    with shop.worker(**IMPATIENT) as second:
        shop.becomes("finished", sendout)
        assert second.stop() == DONE
    states = list(shop.deliveries(sendout).values())
    assert set(states) <= {"sent", "uncertain"}
    assert states.count("uncertain") <= 200
    shop.verify()
