"""Health checks of the console: booleans without reasons, because probes need no token."""

from functools import partial

from coupons import health
from coupons.database import Pool
from coupons.health import broker_reason, database_reason


class Health(health.Health):
    def __init__(self, *, pool: Pool, broker_url: str) -> None:
        outside = {
            "database": partial(database_reason, pool),
            "broker": partial(broker_reason, broker_url, "coupons web"),
        }
        super().__init__(outside, {}, is_live=lambda: True, tells_reasons=False)
