"""Compiles a saved message into an email: the only place that combines a message with the settings for sending."""

from collections.abc import Sequence

from coupons.mail import CompiledEmail, File, compile_email
from coupons.settings import Settings
from coupons.store.messages import Message
from coupons.templates.rendering import Template


def compile_message(message: Message, files: Sequence[File], settings: Settings) -> CompiledEmail:
    """The email for a sendout or a test mail. Raises EmailError if a setting cannot be used."""
    return compile_email(
        template=Template(message.parts),
        sender=message.sender,
        reply_to=message.reply_to,
        bounce_to=settings.bounce_address or None,
        unsubscribe_url=settings.unsubscribe_url or None,
        headers=message.headers,
        files=files,
    )
