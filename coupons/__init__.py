"""What both ends agree on: commands, topology, settings, the store, message rendering."""

__version__ = "0.1.0"
