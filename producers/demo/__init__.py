"""What a first run needs: real services of its own, a mail sink, and the story that is told on them."""
