"""How far a running import is. A worker publishes it every second, between the commits of chunks."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_PER_LINE = 5e-6
"""The expected time to import a line, until the first chunk is imported."""

LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Published:
    """Bytes of the source, as it was sent. `done` counts a byte half when it is read and half when it is imported."""

    read: int
    done: int


NOTHING_READ = Published(0, 0)


class ImportProgress:
    """The progress of one import.

    The database does not tell how far a statement over a chunk is, which may take 20 s. So the chunk that is being
    imported counts in proportion to its time, at the speed of the chunk before, and never whole before its commit.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.has_ended = False
        """Whether the import's result is being recorded."""
        self.received: Callable[[], int] = int
        """Returns the number of source bytes that were received."""
        self._clock = clock
        self._staged = self._committed = self._chunk_end = self._lines = 0
        self._begun = 0.0
        self._seconds_per_line = SECONDS_PER_LINE

    def stage(self, source_bytes: int) -> None:
        """Count the source up to this byte as read and staged."""
        self._staged = source_bytes

    def skip(self, source_bytes: int) -> None:
        """Count the source up to this byte as committed by an earlier worker."""
        self._staged = self._committed = self._chunk_end = source_bytes

    def begin_chunk(self, source_bytes: int, lines: int) -> None:
        """Begin to import the staged lines, which end at this byte of the source."""
        self._chunk_end, self._lines, self._begun = source_bytes, lines, self._clock()

    def commit_chunk(self) -> None:
        if self._lines:
            self._seconds_per_line = (self._clock() - self._begun) / self._lines
        self._committed = self._chunk_end

    @property
    def published(self) -> Published:
        imported = self._committed + self._share * (self._chunk_end - self._committed)
        return Published(max(self.received(), self._staged), int((self._staged + imported) / 2))

    @property
    def _share(self) -> float:
        """The estimated part of the chunk that is imported."""
        expected = max(self._lines * self._seconds_per_line, LEAST_SECONDS)
        return 1 - math.exp(-(self._clock() - self._begun) / expected)
