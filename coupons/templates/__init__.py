"""The template language: analysis when a message is saved, rendering of each mail."""
