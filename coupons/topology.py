"""The exchange and the queues. Workers declare them; publishers only publish.

The arguments have the same meaning on RabbitMQ 3.10 and 4.x. The delivery limit is explicit because 4.x has a default
of 20, which connections that are closed every two seconds would reach within a minute. No code relies on the limit.
"""

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractQueue
from pamqp.common import FieldTable

EXCHANGE = "coupons"
COMMANDS = ("import", "sendout", "resume")
"""The routing keys of commands; each has the queue `coupons.<key>`."""
NUDGE = "deliver"
"""The routing key of nudges, which tell workers that there is work to deliver. After a lost nudge, the next sweep
finds the work."""
DEAD = "dead"
REASON = "x-reason"

DELIVERY_LIMIT = 100
MAX_NUDGES = 1_000

_COMMAND_QUEUE: FieldTable = {
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-overflow": "reject-publish",  # the publisher sees that the queue is full; required by at-least-once
    "x-dead-letter-exchange": EXCHANGE,
    "x-dead-letter-routing-key": DEAD,
    "x-dead-letter-strategy": "at-least-once",
}
_NUDGE_QUEUE: FieldTable = {"x-queue-type": "quorum", "x-max-length": MAX_NUDGES, "x-overflow": "drop-head"}
_DEAD_QUEUE: FieldTable = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000_000,  # reading without acknowledging counts as a delivery, and 3.10 does not know -1
}


def queue_name(routing_key: str) -> str:
    return f"{EXCHANGE}.{routing_key}"


async def declare(channel: AbstractChannel) -> tuple[AbstractExchange, dict[str, AbstractQueue]]:
    """Declare the exchange and all queues. Returns the exchange, and the queues by routing key."""
    exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.DIRECT, durable=True)
    arguments = {DEAD: _DEAD_QUEUE, NUDGE: _NUDGE_QUEUE, **dict.fromkeys(COMMANDS, _COMMAND_QUEUE)}
    queues = {}
    for key, args in arguments.items():
        queues[key] = await channel.declare_queue(queue_name(key), durable=True, arguments=args)
        await queues[key].bind(exchange, key)
    return exchange, queues
