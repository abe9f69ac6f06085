"""Congestion decides how many connections a relay gets; its pace decides whether it is slow."""

from hypothesis import given
from hypothesis import strategies as st

from coupons.smtp.congestion import ADJUST_SECONDS, SLOW_FACTOR, SLOW_SECONDS, Congestion, Pace

START = 1_000.0  # a time of the loop
EVENTS = st.lists(st.tuples(st.sampled_from(["halve", "grow", "cap"]), st.floats(0, 3), st.integers(0, 30)))


@given(st.integers(1, 20), EVENTS)
def test_the_limit_stays_between_one_and_the_share(share: int, events: list[tuple[str, float, int]]) -> None:
    """In each ADJUST_SECONDS the limit is halved at most once and grows by at most one."""
    congestion, now = Congestion(share), START
    grown_at = halved_at = -float("inf")
    for kind, seconds, connections in events:
        now, before = now + seconds, congestion.limit
        match kind:
            case "halve":
                congestion.halve(now)
                if congestion.limit < before:
                    assert now - halved_at >= ADJUST_SECONDS
                    halved_at = now
            case "grow":
                if congestion.grow(now):
                    assert now - grown_at >= ADJUST_SECONDS
                    grown_at = now
                assert congestion.limit <= before + 1
            case _:
                congestion.cap(connections, now)
                assert congestion.limit <= max(1, connections)
        assert 1 <= congestion.limit <= share


def test_a_halved_limit_grows_back_to_the_share() -> None:
    """The limit grows by one connection per second."""
    congestion = Congestion(4)
    congestion.halve(START)
    limits = []
    for seconds in range(4):
        congestion.grow(START + seconds)
        limits.append(congestion.limit)
    assert limits == [2, 3, 4, 4]


def test_a_second_backpressure_at_the_same_time_halves_nothing() -> None:
    """All connections report the same congestion, which halves the limit only once."""
    congestion = Congestion(8)
    for _ in range(5):
        congestion.halve(START)
    assert congestion.limit == 4


def test_a_relay_at_its_share_does_not_grow() -> None:
    """`grow` returns False if the relay has its full share of connections."""
    assert not Congestion(3).grow(START)


def pace_of(seconds: float) -> Pace:
    pace = Pace()
    for _ in range(100):
        pace.record(seconds)
    return pace


def test_a_relay_is_slow_only_compared_with_others() -> None:
    """A single relay is not slow, and neither is one whose other relays have no known pace."""
    slow = pace_of(60)
    assert not slow.is_much_slower_than([])
    assert not slow.is_much_slower_than([Pace()])
    assert not slow.is_much_slower_than([pace_of(60 / (SLOW_FACTOR - 1))])
    assert slow.is_much_slower_than([Pace(), pace_of(60), pace_of(60 / (SLOW_FACTOR + 1))])


def test_a_relay_that_takes_a_tenth_of_a_second_is_not_slow() -> None:
    """A relay that takes 0.1 s per mail is not slow, even if another one takes a millisecond."""
    assert not pace_of(SLOW_SECONDS / 2).record(SLOW_SECONDS / 2)
    assert pace_of(SLOW_SECONDS * 2).record(SLOW_SECONDS * 2)


def test_a_pace_that_is_reset_is_unknown() -> None:
    """After a relay was out of rotation, its pace is measured again."""
    pace = pace_of(60)
    pace.reset()
    assert pace.seconds == 0
