"""Health checks of the console. They report booleans without reasons, because they need no token."""

from functools import partial

from coupons import health
from coupons.database import Pool
from coupons.health import check_broker, check_database


class Health(health.Health):
    def __init__(self, *, pool: Pool, broker_url: str) -> None:
        outside = {
            "database": partial(check_database, pool),
            "broker": partial(check_broker, broker_url, "coupons web"),
        }
        super().__init__(outside, {}, is_live=lambda: True, shows_reasons=False)
