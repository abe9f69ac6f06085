"""Publishes commands: the CLI, the web console with the HTTP API, the Python client."""
