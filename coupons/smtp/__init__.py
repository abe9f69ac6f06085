"""Send mails to relays over SMTP. The outcome of a mail is a returned value, not an exception."""

from coupons.smtp.address import SmtpAddress, SmtpAddressError, Tls
from coupons.smtp.connection import Timeouts
from coupons.smtp.outcomes import (
    Deferred,
    Outcome,
    Phase,
    Refused,
    Sent,
    Subject,
    Uncertain,
    Unreachable,
    UnreachableCause,
)
from coupons.smtp.relay import Limits
from coupons.smtp.relays import Outage, Relays
from coupons.smtp.replies import reply_codes

__all__ = [
    "Deferred",
    "Limits",
    "Outage",
    "Outcome",
    "Phase",
    "Refused",
    "Relays",
    "Sent",
    "SmtpAddress",
    "SmtpAddressError",
    "Subject",
    "Timeouts",
    "Tls",
    "Uncertain",
    "Unreachable",
    "UnreachableCause",
    "reply_codes",
]
