"""Files of codes that users have are read as a person would read them, or refused with the option that helps."""

from typing import Any

import pytest

from coupons.files.code_reader import CodeReader
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat, parse_column
from coupons.files.notices import MAX_NOTICE_CHARS, MAX_NOTICES
from tests.corpus import pieces
from tests.files_of_codes import CASES
from tests.files_people_have import Case

BY_THE_LIST = {"duplicate", "case"}
"""Reasons that depend on the list, which the reader does not know."""


def format_of(options: tuple[str, ...]) -> FileFormat:
    """The format that the options of the command line describe."""
    values = list(options)
    arguments: dict[str, Any] = {}
    while values:
        match values.pop(0):
            case "--header":
                arguments["header"] = True
            case "--no-header":
                arguments["header"] = False
            case "--allow-lookalikes":
                arguments["allow_lookalikes"] = True
            case "--skip-lines":
                arguments["skip_lines"] = int(values.pop(0))
            case "--where":
                arguments["where"] = (*arguments.get("where", ()), values.pop(0))
            case "--column":
                arguments["column"] = parse_column(values.pop(0))
            case option:
                raise ValueError(option)
    return FileFormat(**arguments)


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_has_its_right_result(case: Case, size: int) -> None:
    """Codes, rejected lines and notices are right, or the file is refused. The result does not depend on the pieces."""
    reader = CodeReader(format_of(case.options), case.name)
    if case.refused:
        with pytest.raises(FileError) as caught:
            for piece in pieces(case.content, size):
                reader.feed(piece)
            reader.finish()
        assert case.refused in str(caught.value)
        assert str(caught.value).startswith(case.name)
        return
    batches = [*map(reader.feed, pieces(case.content, size)), reader.finish()]
    codes = tuple(code for batch in batches for code in batch.codes)
    rejected = {each.line: each.reason.value for batch in batches for each in batch.rejected}
    by_the_list = {line for line, reason in case.rejected.items() if reason in BY_THE_LIST}
    assert rejected == {line: reason for line, reason in case.rejected.items() if line not in by_the_list}
    assert codes == case.accepted or (by_the_list and codes[: len(case.accepted)] == case.accepted)
    assert case.notice is None or any(case.notice in notice for notice in reader.notices)
    assert len(reader.notices) <= MAX_NOTICES
    for notice in reader.notices:
        assert len(notice) <= MAX_NOTICE_CHARS
        assert not any(code in notice for code in codes)
