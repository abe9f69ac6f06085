"""Names of lists, groups and messages."""

import pytest

from coupons.names import InvalidName, parse_name


@pytest.mark.parametrize(
    ("text", "name"),
    [("spring-10", "spring-10"), (" Spring 10 ", "spring 10"), ("2026_a.b", "2026_a.b"), ("A" * 50, "a" * 50)],
)
def test_a_name_is_stored_stripped_and_in_lower_case(text: str, name: str) -> None:
    """Two spellings of one name are the same list."""
    assert parse_name(text) == name
    assert parse_name(parse_name(text)) == name


@pytest.mark.parametrize("text", ["", "  ", "-a", ".a", "a/b", "a\nb", "a  b", "frühling", "a;b", "{{a}}"])
def test_other_names_are_rejected(text: str) -> None:
    """With one line that states the rules for a name."""
    with pytest.raises(InvalidName, match=r"^a name consists of letters a-z, digits, single spaces"):
        parse_name(text)


def test_a_name_has_at_most_50_characters() -> None:
    """The limit of the reference manual."""
    with pytest.raises(InvalidName, match="at most 50 characters"):
        parse_name("a" * 51)
