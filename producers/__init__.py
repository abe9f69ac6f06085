"""Puts commands in: the CLI, the web console and HTTP API, the Python client."""
