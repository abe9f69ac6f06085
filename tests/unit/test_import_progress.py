"""The progress of an import moves all the time, and is whole only at the end."""

from coupons.import_progress import ImportProgress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_progress_moves_while_a_chunk_is_imported() -> None:
    """A statement over a chunk takes many seconds. Its chunk counts in proportion to its time, but is never whole."""
    clock = Clock()
    progress = ImportProgress(clock)
    progress.stage(1_000_000)
    progress.begin_chunk(1_000_000, 1_000_000)
    seen = []
    for second in range(12):
        clock.now = float(second)
        seen.append(progress.published.done)
    assert seen == sorted({*seen})
    assert seen[0] == 500_000
    assert seen[-1] < 1_000_000
    progress.commit_chunk()
    assert progress.published.done == 1_000_000


def test_a_byte_counts_half_when_it_is_read_and_half_when_it_is_imported() -> None:
    """Reading the next chunk and importing the last one take turns, so either makes the progress move."""
    clock = Clock()
    progress = ImportProgress(clock)
    progress.stage(100)
    progress.begin_chunk(100, 10)
    progress.commit_chunk()
    progress.stage(300)
    assert progress.published.done == 200
    progress.received = lambda: 1_000
    assert progress.published.read == 1_000


def test_a_chunk_is_expected_to_take_as_long_as_the_one_before() -> None:
    """The second chunk of the same size is at 63 % after the time of the first."""
    clock = Clock()
    progress = ImportProgress(clock)
    for end in (100, 200):
        progress.stage(end)
        progress.begin_chunk(end, 10)
        clock.now += 8
        if end == 100:
            progress.commit_chunk()
    assert progress.published.done == 150 + int(0.632 * 50)


def test_lines_that_an_earlier_worker_has_committed_are_done() -> None:
    """After a crash the source is read again from its beginning."""
    progress = ImportProgress(Clock())
    progress.skip(400)
    assert progress.published.done == 400
