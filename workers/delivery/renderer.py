"""Render the mails of one sendout. The message is compiled once; each delivery fills in its attributes and codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from coupons.mail import Envelope, File
from coupons.message_compiler import compile_message
from coupons.settings import Settings
from coupons.store.deliveries import BatchList, Delivery
from coupons.store.messages import Message
from coupons.templates.alternative import AlternativeText
from coupons.templates.rendering import Coupon, RenderError


@dataclass(frozen=True, slots=True)
class Mail:
    """A rendered mail.

    `unused` are the ids of the lists whose codes return when the mail leaves: the delivery has a code that the mail
    does not print. `sent_delivery` is the delivery once these codes are returned. Its mail is the same mail.
    """

    delivery: Delivery
    envelope: Envelope
    sent_delivery: Delivery
    unused: tuple[int, ...] = ()


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
        self._alternatives = {each.list_id: AlternativeText(each.alternative_text) for each in lists}

    def render(self, delivery: Delivery) -> Mail:
        """Return the delivery's mail. Raises RenderError if the mail cannot be rendered; it must not be sent then."""
        attributes = {**delivery.attributes, "email": delivery.address}
        if delivery.lists is not None and not delivery.lists:
            self._compiled.template.lists_for(attributes)  # raises if it needs no list because a condition failed
        coupons = {
            each.name: self._coupon(each, delivery, attributes) for each in self.lists if delivery.needs(each.list_id)
        }
        rendered = self._compiled.template.render_varying(attributes, coupons)
        envelope = self._compiled.compose(
            rendered,
            rcpt=delivery.address,
            message_id=self._compiled.message_id(self._sendout_id, delivery.number),
            date=datetime.now(UTC),
        )
        if delivery.was_uncertain or not rendered.unused:  # an earlier mail may have printed a code that is unused now
            return Mail(delivery, envelope, delivery)
        unused = tuple(each.list_id for each in self.lists if each.name in rendered.unused)
        kept = [each.list_id for each in self.lists if each.name in coupons.keys() - rendered.unused]
        return Mail(delivery, envelope, delivery.limited_to(kept), unused)

    def _coupon(self, of: BatchList, delivery: Delivery, attributes: Mapping[str, str]) -> Coupon:
        code = delivery.codes.get(of.list_id)
        if code is not None:
            return Coupon(code, is_code=True)
        if of.shortage == "pause":
            raise RenderError(f"the recipient has no code of list {of.name}")
        return Coupon(self._alternatives[of.list_id].render(attributes), is_code=False)
