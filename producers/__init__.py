"""The programs that publish commands: command line, web console with HTTP API, Python client."""
