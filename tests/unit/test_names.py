"""Names of lists, groups and messages."""

import pytest

from coupons.names import InvalidName, parse_name


@pytest.mark.parametrize(
    ("text", "name"),
    [("spring-10", "spring-10"), (" Spring 10 ", "spring 10"), ("2026_a.b", "2026_a.b"), ("A" * 50, "a" * 50)],
)
def test_a_name_is_stored_stripped_and_in_lower_case(text: str, name: str) -> None:
    """Names that differ only in case and surrounding spaces are stored as the same name."""
    assert parse_name(text) == name
    assert parse_name(parse_name(text)) == name


@pytest.mark.parametrize("text", ["", "  ", "-a", ".a", "a/b", "a\nb", "a  b", "frühling", "a;b", "{{a}}"])
def test_other_names_are_rejected(text: str) -> None:
    """An invalid name is rejected with one line that contains the rules for names."""
    with pytest.raises(InvalidName, match=r"^a name consists of letters a-z, digits, single spaces"):
        parse_name(text)


def test_a_name_has_at_most_50_characters() -> None:
    """A name of 51 characters is rejected; the reference manual has the limit of 50."""
    with pytest.raises(InvalidName, match="at most 50 characters"):
        parse_name("a" * 51)
