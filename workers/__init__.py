"""The worker process: its roles import, sendout and deliver, and the sweep that finds work without a command."""
