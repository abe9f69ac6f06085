"""Admission decides whether a sendout can start: it reserves codes of all lists or of none."""

from hypothesis import given
from hypothesis import strategies as st

from coupons.admission import Granted, Need, Short, decide
from coupons.states import Shortage


def need(list_id: int = 1, *, needed: int = 1000, available: int = 1000, shortage: Shortage = Shortage.PAUSE) -> Need:
    return Need(list_id, f"list-{list_id}", shortage, needed, available)


def test_exactly_enough_is_enough() -> None:
    """A list with as many available codes as recipients lacks no codes."""
    assert decide([need()]) == Granted({1: 1000})


def test_one_code_too_few_grants_nothing() -> None:
    """A sendout with 999 codes for 1,000 recipients is interrupted, and the reason contains the numbers."""
    decision = decide([need(available=999)])
    assert isinstance(decision, Short)
    assert str(decision) == "list list-1: 1000 needed, 999 available, 1 missing"


def test_one_short_list_holds_back_the_others() -> None:
    """No code of a full list is reserved if another list lacks codes."""
    assert decide([need(1), need(2, available=0)]) == Short((need(2, available=0),))


def test_a_list_with_alternative_text_gives_what_it_has() -> None:
    """A list with an alternative text never interrupts a sendout: its available codes are reserved."""
    assert decide([need(available=600, shortage=Shortage.TEXT), need(2)]) == Granted({1: 600, 2: 1000})


def test_a_message_without_codes_needs_nothing() -> None:
    """A message without lists lacks no codes."""
    assert decide([]) == Granted({})


SHORTAGES: st.SearchStrategy[Shortage] = st.sampled_from(["pause", "text"])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), SHORTAGES), max_size=5))
def test_no_more_is_granted_than_is_there_or_needed(rows: list[tuple[int, int, Shortage]]) -> None:
    """An amount exceeds neither available nor needed codes, and is complete if the list's shortage setting is pause."""
    needs = [need(i, needed=n, available=a, shortage=s) for i, (n, a, s) in enumerate(rows)]
    match decide(needs):
        case Granted(amounts):
            for each in needs:
                assert amounts[each.list_id] == min(each.needed, each.available)
                assert each.shortage == "text" or amounts[each.list_id] == each.needed
        case Short(short):
            assert short
            assert all(isinstance(each, Need) and each.missing and each.shortage == "pause" for each in short)
