"""The reader of recipients gives the right result for each file that people have."""

import csv

import pytest

from coupons.files.decoding import FileError
from coupons.files.format import FileFormat, parse_column
from coupons.files.recipient_reader import RecipientReader
from tests.files_of_recipients import RECIPIENT_FILES
from tests.files_people_have import Case


def format_of(options: tuple[str, ...]) -> FileFormat:
    """The format of these options of the command line."""
    values: dict[str, list[str]] = {}
    last = ""
    for option in options:
        if option.startswith("--"):
            values.setdefault(option, [])
            last = option
        else:
            values[last].append(option)
    return FileFormat(
        encoding=values.get("--encoding", ["utf-8"])[0],
        column=parse_column(values.get("--column", [""])[0]),
        header=True if "--header" in values else False if "--no-header" in values else None,
        skip_lines=int(values.get("--skip-lines", ["0"])[0]),
        columns=tuple(name for row in csv.reader(values.get("--columns", [])) for name in row),
        where=tuple(values.get("--where", [])),
        force_encoding="--force-encoding" in values,
    )


@pytest.mark.parametrize("case", RECIPIENT_FILES, ids=lambda case: case.name)
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_a_file_that_people_have_gives_the_right_recipients(case: Case, piece: int) -> None:
    """The addresses, the rejected lines, the refusal and the notice are right, however the bytes arrive."""
    reader = RecipientReader(format_of(case.options), case.name)
    pieces = [case.content[start : start + piece] for start in range(0, len(case.content), piece)]
    if case.refused is not None:
        with pytest.raises(FileError) as caught:
            _ = [*map(reader.feed, pieces), reader.finish()]
        assert case.refused in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    batches = [*map(reader.feed, pieces), reader.finish()]
    assert tuple(address for batch in batches for address in batch.addresses) == case.accepted
    rejected = {each.line: each.reason.value for batch in batches for each in batch.rejected}
    assert rejected == case.rejected
    assert case.notice is None or any(case.notice in each for each in reader.notices), reader.notices
    assert all(len(each) <= 300 for each in reader.notices)
    assert "ada@" not in reader.description + "".join(reader.notices)
