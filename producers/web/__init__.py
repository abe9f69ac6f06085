"""The web console and the HTTP API: what a browser or another program needs for the main story."""

ACQUIRE_SECONDS = 5
"""How long a request waits for a connection to the database, all of them being in use."""
