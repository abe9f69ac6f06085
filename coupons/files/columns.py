"""The columns of a recipient file: which of them become attributes, and under which names."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from coupons.attributes import MAX_ATTRIBUTE_NAME, MAX_ATTRIBUTES, RESERVED, attribute_name
from coupons.files.decoding import FileError
from coupons.files.header_names import NameKind, code_name, is_other_name
from coupons.files.notices import MAX_NOTICE_CHARS

EMAIL = "email"
_MAX_SHOWN_CHARS = 50
_MAX_SHOWN_COLUMNS = 30
_LAST_LATIN = "\u024f"
_LETTERS = str.maketrans({"ł": "l", "ø": "o", "æ": "ae", "đ": "d", "\u0131": "i"})  # they have no decomposition


@dataclass(frozen=True, slots=True)
class AttributeColumns:
    """Attribute `names[i]` has its values in column `places[i]`. `notices` describe what was left out or renamed."""

    names: list[str]
    places: list[int]
    notices: list[str]


def choose_attributes(
    header: Sequence[str], address: int, *, chosen: Sequence[str] = (), ignored: Collection[int] = ()
) -> AttributeColumns:
    """The columns that become attributes: those of `chosen` (`Name` or `Name=attribute`), else all that can.

    A column without a name, or with a name that no attribute can have, is left out. A second column of one name gets
    `_2`. `address` and `ignored` are the indices of columns that are not attributes. Raises FileError if a column of
    `chosen` does not exist or cannot become an attribute.
    """
    renames = dict(_chosen_columns(header, chosen))
    if renames.get(address):
        raise FileError(
            f"column {shown_column(header, address)} contains the addresses: its attribute is always {EMAIL}"
        )
    candidates = [place for place in range(len(header)) if place != address and place not in ignored]
    places = [place for place in candidates if not chosen or place in renames]
    wanted = {place: renames.get(place) or _attribute(header, place) for place in places}
    problems = {place: problem for place, name in wanted.items() if (problem := _problem(name))}
    if chosen and problems:
        place, problem = next(iter(problems.items()))
        raise FileError(f'column {shown_column(header, place)} {problem}: choose it as "{name_of(header, place)}=name"')
    names = _distinct({place: name for place, name in wanted.items() if place not in problems})
    kept = dict(list(names.items())[:MAX_ATTRIBUTES])
    if chosen and len(names) > MAX_ATTRIBUTES:
        raise FileError(f"{len(names)} chosen columns exceed the limit of {MAX_ATTRIBUTES} attributes")
    notices = [*_left_out(header, problems), *_renamed(header, kept, renames), *_cut(header, list(names), kept)]
    return AttributeColumns(list(kept.values()), list(kept), notices)


def matching_columns(header: Sequence[str], name: str) -> list[int]:
    """The indices of the columns with this name, without regard to case and blanks; else with its attribute's name.

    A number that is not a name is a position.
    """
    folded = _folded(name)
    found = [index for index, cell in enumerate(header) if cell.strip() and _folded(cell) == folded]
    if not found and (meant := attribute_name(name)):
        found = [index for index, cell in enumerate(header) if cell.strip() and attribute_name(cell) == meant]
    if not found and re.fullmatch("[0-9]{1,9}", name.strip()) and 1 <= int(name) <= len(header):
        found = [int(name) - 1]
    return found


def get_columns(header: Sequence[str], name: str) -> list[int]:
    """Like `matching_columns`. Raises FileError if there is no such column."""
    if found := matching_columns(header, name):
        return found
    raise FileError(f"no column {name.strip()[:_MAX_SHOWN_CHARS]!r}: {list_columns(header)}")


def list_columns(header: Sequence[str]) -> str:
    """The columns in words. The cells are shown only if one of them is a known name and none may be a value.

    Otherwise the file may have no header, and its first line may contain codes, addresses or names of people.
    """
    number = f"the file has {len(header)} column{'' if len(header) == 1 else 's'}"
    if not any(map(str.strip, header)):
        return f"{number} without names"
    if any(map(_may_be_value, header)) or not any(map(_is_known_name, header)):
        return number
    shown = [f"{place + 1} {cell.strip()[:_MAX_SHOWN_CHARS]!r}" for place, cell in enumerate(header) if cell.strip()]
    return "the columns are " + ", ".join(shown[:_MAX_SHOWN_COLUMNS]) + ", …" * (len(shown) > _MAX_SHOWN_COLUMNS)


def _may_be_value(cell: str) -> bool:
    """Whether a cell may be an address, a code or a phone number, which no error shows."""
    return "@" in cell or re.search(r"\d\D?\d\D?\d", cell) is not None


def _is_known_name(cell: str) -> bool:
    return is_other_name(cell) or code_name(cell) is NameKind.STRONG


def header_words(name: str) -> list[str]:
    """The words of a column's name in lower case and without accents. Numbers are words, and so are the parts of aB."""
    decomposed = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).casefold()
    plain = "".join(each for each in decomposed if not unicodedata.combining(each))
    return re.findall(r"[^\W\d_]+|\d+", plain.translate(_LETTERS))


def notice(beginning: str, items: Iterable[str], end: str = "") -> str:
    """A sentence with a list between its beginning and its end. Items that do not fit into a notice are counted."""
    listed = list(items)
    shown: list[str] = []
    for item in listed:
        if len(beginning) + len(", ".join([*shown, item])) > MAX_NOTICE_CHARS - len(" and 1,000,000 more" + end):
            break
        shown.append(item)
    more = f" and {len(listed) - len(shown):,} more" if len(shown) < len(listed) else ""
    return f"{beginning}{', '.join(shown)}{more}{end}"


def _chosen_columns(header: Sequence[str], chosen: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The indices of the chosen columns, each with its attribute's name, which is empty if it follows the header."""
    for item in chosen:
        name, equals, attribute = item.rpartition("=")
        if not equals or matching_columns(header, item):
            name, attribute = item, ""
        elif attribute_name(attribute) != attribute.strip():
            raise FileError(
                f"{attribute.strip()[:_MAX_SHOWN_CHARS]!r} is not an attribute's name: use a-z, 0-9 and _, such as"
                f" {attribute_name(attribute) or 'first_name'}"
            )
        yield from ((place, attribute.strip()) for place in get_columns(header, name))


def _attribute(header: Sequence[str], place: int) -> str:
    """The attribute's name of a column. It is empty if the column has no name."""
    cell = header[place].strip()
    return cell and (attribute_name(cell) or f"column_{place + 1}")


def _problem(name: str) -> str:
    """The reason why no attribute can have this name."""
    if not name:
        return "has no name"
    if name == EMAIL or name in RESERVED:
        return "has a reserved name"
    return f"has a name of more than {MAX_ATTRIBUTE_NAME} characters" if len(name) > MAX_ATTRIBUTE_NAME else ""


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """The names in the order of the file. The first column of a name keeps it, the second gets `_2`."""
    firsts = {name: place for place, name in sorted(names.items(), reverse=True)}
    taken = set(firsts)
    distinct = {}
    for place, name in sorted(names.items()):
        number = 2
        while firsts[name] != place and (candidate := _numbered(name, number)) in taken:
            number += 1
        distinct[place] = name if firsts[name] == place else candidate
        taken.add(distinct[place])
    return distinct


def _numbered(name: str, number: int) -> str:
    ending = f"_{number}"
    return name[: MAX_ATTRIBUTE_NAME - len(ending)] + ending


def _left_out(header: Sequence[str], problems: Mapping[int, str]) -> Iterator[str]:
    for problem in dict.fromkeys(problems.values()):
        shown = [shown_column(header, place) for place, each in problems.items() if each == problem]
        if len(shown) == 1:
            remedy = "" if problem == "has no name" else ", unless --columns renames it"
            yield f"column {shown[0]} was left out because it {problem}{remedy}"
        else:
            remedy = "" if problem == "has no name" else ", unless --columns renames them"
            numbers = " (by number)" if problem == "has no name" else ""
            plural = problem.replace("has ", "have ", 1)
            yield notice(f"columns left out because they {plural}{remedy}{numbers}: ", shown)


def _renamed(header: Sequence[str], names: Mapping[int, str], renames: Mapping[int, str]) -> Iterator[str]:
    """Notices about the names that do not follow from the header alone, or only by a transliteration."""
    numbered = [place for place, name in names.items() if name != (renames.get(place) or _attribute(header, place))]
    if numbered:
        yield notice(
            "columns of the same name are numbered: ",
            (f"column {place + 1} {name_of(header, place)!r} is {names[place]}" for place in numbered),
        )
    foreign = [
        place
        for place in names
        if not renames.get(place) and any(each > _LAST_LATIN and each.isalnum() for each in header[place])
    ]
    if foreign:
        yield notice(
            "column names were transliterated: ", (f"{name_of(header, place)!r} is {names[place]}" for place in foreign)
        )


def _cut(header: Sequence[str], places: Sequence[int], kept: Collection[int]) -> Iterator[str]:
    if len(places) > len(kept):
        left_out = (shown_column(header, place) for place in places if place not in kept)
        yield notice(
            f"only the first {MAX_ATTRIBUTES} of {len(places)} columns became attributes; left out: ",
            left_out,
            "; --columns chooses others",
        )


def name_of(header: Sequence[str], place: int) -> str:
    """The name of a column on one line, shortened; its number if it has no name."""
    cell = " ".join(header[place].split())
    shown = cell if len(cell) <= _MAX_SHOWN_CHARS else cell[:_MAX_SHOWN_CHARS] + "…"
    return "".join(each for each in shown if each.isprintable()) or str(place + 1)


def shown_column(header: Sequence[str], place: int) -> str:
    """The name of a column in quotes, or its number if it has no name."""
    return repr(name_of(header, place)) if header[place].strip() else str(place + 1)


def _folded(name: str) -> str:
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", name).casefold())
