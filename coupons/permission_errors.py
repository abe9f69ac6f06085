"""The error message for a login without the necessary rights. docs/reference/roles.sql has the rights of each role."""

import asyncpg

CODES = ("coupon", "duplicate_code", "import_rejection", "retired_code", "retired_spelling", "retired_code_key")
"""Tables that only the role coupons_codes can read completely."""


def denial(error: asyncpg.InsufficientPrivilegeError) -> str:
    """One line for a denied statement. The last word of the database's message is a table's name in every language."""
    words = str(error).splitlines()[0]
    if words.split()[-1].strip('"') in CODES:
        return "permission denied for codes: reading codes requires the role coupons_codes, deleting codes the owner"
    return f"this login may not do that: {words} (docs/reference/roles.sql)"
