"""May a sendout begin? All lists or none."""

from hypothesis import given
from hypothesis import strategies as st

from coupons.admission import Granted, Need, Short, decide
from coupons.states import Shortage


def need(list_id: int = 1, *, needed: int = 1000, available: int = 1000, shortage: Shortage = Shortage.PAUSE) -> Need:
    return Need(list_id, f"list-{list_id}", shortage, needed, available)


def test_exactly_enough_is_enough() -> None:
    """A list with as many codes as recipients is not short."""
    assert decide([need()]) == Granted({1: 1000})


def test_one_code_too_few_grants_nothing() -> None:
    """999 codes for 1,000 recipients interrupt the sendout, and the reason counts."""
    decision = decide([need(available=999)])
    assert isinstance(decision, Short)
    assert str(decision) == "list list-1: 1000 needed, 999 available, 1 missing"


def test_one_short_list_holds_back_the_others() -> None:
    """Nothing is promised of a full list when another one is short."""
    assert decide([need(1), need(2, available=0)]) == Short((need(2, available=0),))


def test_a_list_with_alternative_text_gives_what_it_has() -> None:
    """Such a list never interrupts a sendout."""
    assert decide([need(available=600, shortage=Shortage.TEXT), need(2)]) == Granted({1: 600, 2: 1000})


def test_a_message_without_codes_needs_nothing() -> None:
    """No lists, no shortage."""
    assert decide([]) == Granted({})


SHORTAGES: st.SearchStrategy[Shortage] = st.sampled_from(["pause", "text"])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), SHORTAGES), max_size=5))
def test_no_more_is_granted_than_is_there_or_needed(rows: list[tuple[int, int, Shortage]]) -> None:
    """Whatever the lists have, a grant is within available and needed, and whole where the list pauses."""
    needs = [need(i, needed=n, available=a, shortage=s) for i, (n, a, s) in enumerate(rows)]
    match decide(needs):
        case Granted(amounts):
            for each in needs:
                assert amounts[each.list_id] == min(each.needed, each.available)
                assert each.shortage == "text" or amounts[each.list_id] == each.needed
        case Short(short):
            assert short
            assert all(each.missing and each.shortage == "pause" for each in short)
