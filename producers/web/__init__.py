"""The web console and the HTTP API."""

ACQUIRE_SECONDS = 5
"""How long a request waits for a database connection while all of them are in use."""
