"""The code that producers and workers share: commands, topology, settings, the store, message rendering."""

__version__ = "0.1.0"
