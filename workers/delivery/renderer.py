"""Render the mails of one sendout. The message is compiled once; each delivery fills in its attributes and codes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from coupons.mail import Envelope, File
from coupons.message_compiler import compile_message
from coupons.settings import Settings
from coupons.store.deliveries import BatchList, Delivery
from coupons.store.messages import Message
from coupons.templates.rendering import Coupon, RenderError


class Renderer:
    def __init__(
        self,
        sendout_id: UUID,
        message: Message,
        files: Sequence[File],
        lists: Sequence[BatchList],
        *,
        settings: Settings,
    ) -> None:
        """Compile the message. Raises EmailError if a setting is invalid."""
        self.lists = lists
        self._sendout_id = sendout_id
        self._compiled = compile_message(message, files, settings)

    def render(self, delivery: Delivery) -> Envelope:
        """Return the delivery's mail. Raises RenderError if the mail cannot be rendered; it must not be sent then."""
        return self._compiled.write(
            rcpt=delivery.address,
            message_id=self._compiled.message_id(self._sendout_id, delivery.number),
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
