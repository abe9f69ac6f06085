"""Emails: compiled once per sendout, then written for each recipient as the bytes that go over the wire.

The standard library's `EmailMessage` builds 510 to 750 mails per second. In Python 3.11 it also lets an encoded line
break start a new header. A sendout needs only a small part of MIME: this package writes 75,000 mails per second (2.6 kB
each, text and HTML, including rendering). The tests compare its output with the standard library's parser and
generator.
"""

from coupons.mail.compiled import CompiledEmail, EmailError, check_settings, compile_email, message_id
from coupons.mail.envelope import MAX_LINE, Envelope
from coupons.mail.files import MAX_ENCODED, File
from coupons.mail.mailbox import Mailbox, parse_mailbox

__all__ = [
    "MAX_ENCODED",
    "MAX_LINE",
    "CompiledEmail",
    "EmailError",
    "Envelope",
    "File",
    "Mailbox",
    "check_settings",
    "compile_email",
    "message_id",
    "parse_mailbox",
]
