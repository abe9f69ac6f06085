"""The message language: analysis of a template when it is saved, rendering of each mail."""
