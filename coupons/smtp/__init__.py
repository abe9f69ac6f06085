"""Mail to a relay over SMTP. What became of a mail is a value, not an exception."""

from coupons.smtp.address import SmtpAddress, SmtpAddressError, Tls
from coupons.smtp.connection import Timeouts
from coupons.smtp.outcomes import Deferred, Outcome, Refused, SenderRefused, Sent, Uncertain, Unreachable
from coupons.smtp.relay import Relay

__all__ = [
    "Deferred",
    "Outcome",
    "Refused",
    "Relay",
    "SenderRefused",
    "Sent",
    "SmtpAddress",
    "SmtpAddressError",
    "Timeouts",
    "Tls",
    "Uncertain",
    "Unreachable",
]
