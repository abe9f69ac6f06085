"""Write the mails of one sendout: its message compiled once, each delivery's attributes and codes filled in."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from coupons.mail import Envelope, File, compile_email, message_id, parse_mailbox
from coupons.settings import Settings
from coupons.store.deliveries import BatchList, Delivery
from coupons.store.messages import Message
from coupons.templates.rendering import Coupon, RenderError, Template


class Writer:
    def __init__(
        self, message: Message, files: Sequence[File], lists: Sequence[BatchList], *, settings: Settings
    ) -> None:
        """Raises EmailError: a setting cannot be used."""
        self.lists = lists
        self._domain = parse_mailbox(message.sender).address.rpartition("@")[2]
        self._compiled = compile_email(
            template=Template(message.parts),
            sender=message.sender,
            reply_to=message.reply_to,
            bounce_to=settings.bounce_address or None,
            unsubscribe_url=settings.unsubscribe_url or None,
            headers=message.headers,
            files=files,
        )

    def write(self, sendout_id: UUID, delivery: Delivery) -> Envelope:
        """The delivery's mail. Raises RenderError: it has no such mail, and none may be handed over."""
        return self._compiled.write(
            rcpt=delivery.address,
            message_id=message_id(sendout_id, delivery.number, self._domain),
            date=datetime.now(UTC),
            attributes={**delivery.attributes, "email": delivery.address},
            coupons={each.name: _coupon(each, delivery) for each in self.lists},
        )


def _coupon(of: BatchList, delivery: Delivery) -> Coupon:
    code = delivery.codes.get(of.list_id)
    if code is not None:
        return Coupon(code, is_code=True)
    if of.shortage == "pause":
        raise RenderError(f"the recipient has no code of list {of.name}")
    return Coupon(of.alternative_text, is_code=False)
