"""Takes commands out: import, sendout, resume, deliver, and the sweep that finds work without a command."""
