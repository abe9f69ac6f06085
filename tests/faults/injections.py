"""Attack strings for addresses, attributes and codes that try to change the structure of a mail."""

from coupons.attributes import MAX_ATTRIBUTE_CHARS
from tests.unit.test_mail_chunks import INJECTIONS

FORMULAS = (
    '=HYPERLINK("#A1","x")',
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1:A9)",
    "=cmd|' /C calc'!A0",
    "\uff1d1",
)

ATTRIBUTES = (
    *(text for text in INJECTIONS if text.isprintable() and len(text) <= MAX_ATTRIBUTE_CHARS),
    *FORMULAS,
    "=?utf-8?q?=0D=0ABcc:_eve=40example.org?=", "=?utf-8?b?DQpCY2M6IGV2ZUBleGFtcGxlLm9yZw==?=",
    "=?us-ascii?q?a?= =?b?=",
    '"', '";', "'; DROP TABLE coupon; --", "\\", "\\r\\n", "<script>alert(1)</script>", "{{ coupon('nasty') }}",
    "%0a",
    "אבג", "👩\u200d👩\u200d👧", "e\u0301" * 40, "ﷺ" * 60, "x" * 1_000, "ä" * 1_000, "a, b", "a:b", "a;b", "(c)",
    "<a@b>",
)  # fmt: skip
"""Attributes that are accepted. Each arrives unchanged, as a plain value."""

CHANGED_ATTRIBUTES = {
    "Ada\r\nBcc: eve@example.org": "Ada Bcc: eve@example.org",
    "Ada\rBcc: eve@example.org": "Ada Bcc: eve@example.org",
    "Ada\nBcc: eve@example.org": "Ada Bcc: eve@example.org",
    "Ada\r\n.\r\nMAIL FROM:<eve@example.org>": "Ada . MAIL FROM:<eve@example.org>",
    "Ada\u2028Bcc: eve@example.org": "Ada Bcc: eve@example.org",
    "x" * 1_001: "x" * 1_000,
}
"""Attributes that are accepted, and what arrives: line breaks become blanks, and long values are cut."""

REFUSED_ATTRIBUTES = {
    "a NUL": "Ada\0",
    "a next line": "Ada\x85Bcc: eve@example.org",
}
"""Attributes that are rejected, by the name of their fault."""

REFUSED_ADDRESSES = (
    "a@example.org, b@example.org", "a@example.org;b@example.org", "a@example.org b@example.org",
    "a@example.org\nBcc: b@example.org",
    "a@exam\0ple.org",
    "a@example.org>", "a@127.0.0.1", "a@localhost", "a@@example.org", "@example.org", "a@", "a",
    "a@example..org", ".a@example.org", "a..b@example.org", "a@-example.org", f"{'a' * 65}@example.org",
    f"a@{'b' * 63}.{'c' * 63}.{'d' * 63}.{'e' * 62}.org", "a\u202e@example.org", "\u200ba@example.org",
    "a@exam\u2028ple.org",
    "a@faß.example", "a@example.org%0aBcc:b@example.org@x", '=HYPERLINK("a@example.org")', "+1", "-2+3", "@SUM(A1)",
    "a@example.org> SIZE=1", "a@example.org?cc=b@example.org",
)  # fmt: skip
"""Addresses that are rejected: none is a single valid address."""

CODES = (
    'n"1',
    "n<b>2",
    "n&amp;3",
    "n'4",
    "n=?utf-8?q?5?=",
    "n\\6",
    "n%0a7",
    "n;8",
    "n,9",
    "n|10",
    "ä-11",
    "n 12",
    *filter(str.isascii, FORMULAS),
)
"""Codes that are accepted. Each arrives unchanged."""
REFUSED_CODES = (
    "a\x00b",
    "a\u202eb",
    "a\u200bb",
    "https://evil.example/1",
    "{{ code }}",
    "x" * 201,
    "1,2E+11",
    "a\x1bb",
    "\uff1d1",
)
