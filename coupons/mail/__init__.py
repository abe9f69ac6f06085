"""An email: compiled once for a sendout, written for each recipient as the bytes that go over the wire.

The standard library's `EmailMessage` builds 510 to 750 mails a second and, in Python 3.11, lets an encoded line break
begin a header of its own. What a sendout needs of MIME is little and stands here, at 75,000 mails a second (2.6 kB,
text and HTML, rendering included); the tests hold it against the standard library's parser and generator.
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
