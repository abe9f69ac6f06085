"""The error message for a login that the database refuses; docs/reference/roles.sql has the rights of each role."""

import asyncpg

CODES = ("coupon", "import_rejection", "retired_code", "retired_code_key")
"""Tables of which only a part can be read without the role coupons_codes."""


def denial(error: asyncpg.InsufficientPrivilegeError) -> str:
    """One line. Of the database's own words only the last one is read: the name of a table, whatever their language."""
    words = str(error).splitlines()[0]
    if words.split()[-1].strip('"') in CODES:
        return "this login may not do that with codes: members of coupons_codes see them, the owner deletes them"
    return f"this login may not do that: {words} (docs/reference/roles.sql)"
